"""The table of threats: every measure has a test that exists."""

from __future__ import annotations

import re

from tests.observability.files import ROOT


def test_every_threat_has_a_measure_and_tests_that_exist() -> None:
    rows = [line for line in (ROOT / "docs" / "security.md").read_text().splitlines() if line.startswith("| ")][2:]
    named = {name for row in rows for name in re.findall(r"`(test_\w+)`", row)}
    written = {name for path in (ROOT / "tests").rglob("test_*.py") for name in re.findall(r"def (test_\w+)", path.read_text())}
    assert named <= written, named - written
    assert len(rows) > 15
    for row in rows:
        threat, measure, tests = (cell.strip() for cell in row.strip("|").split("|"))
        assert threat and measure and "`test_" in tests, row
