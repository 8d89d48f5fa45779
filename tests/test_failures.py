"""`docs/failures.md` explains every failure code there is, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from tav_client.schemas import FailureCode

DOCS = Path(__file__).parents[1] / "docs"
SECTIONS = re.findall(r"^## `(\w+)`\n\n(.+?)(?=\n## |\Z)", (DOCS / "failures.md").read_text("utf-8"), re.M | re.S)


def test_every_failure_code_has_a_paragraph_and_no_other_has() -> None:
    assert sorted(code for code, _ in SECTIONS) == sorted(FailureCode)
    assert all(len(text.split()) >= 15 for _, text in SECTIONS)


def test_the_links_into_the_contract_lead_somewhere() -> None:
    text = (DOCS / "failures.md").read_text("utf-8")
    heads = re.findall(r"^#+ (.*)$", (DOCS / "http.md").read_text("utf-8"), re.M)
    anchors = {re.sub(r"[^a-z0-9 -]", "", head.lower()).replace(" ", "-") for head in heads}
    assert set(re.findall(r"\]\(http\.md#([^)]*)\)", text)) <= anchors
