"""Alert rules and dashboard as files: tried by Prometheus' own tool, explained in the guide, about metrics that are defined."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import yaml

from services import metrics
from tests.observability.files import OBSERVABILITY, ROOT, dashboard_queries, metrics_in


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((OBSERVABILITY / "alerts.yml").read_text())["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def promtool(*words: str) -> str:
    done = subprocess.run(["promtool", *words], capture_output=True, text=True, check=False, cwd=OBSERVABILITY)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_alert_goes_off_when_it_must_and_only_then() -> None:
    promtool("check", "rules", "alerts.yml")
    promtool("test", "rules", "alerts.test.yml")
    tried = set(re.findall(r'alertname="(\w+)"', (OBSERVABILITY / "alerts.test.yml").read_text()))
    assert tried == {rule["alert"] for rule in rules()}


def test_every_alert_says_where_the_guide_tells_what_to_do() -> None:
    headings = re.findall(r"^### (\w+)$", (ROOT / "docs" / "operations.md").read_text(), re.MULTILINE)
    assert [rule["annotations"]["runbook_url"] for rule in rules()] == [
        f"docs/operations.md#{rule['alert'].lower()}" for rule in rules()
    ]
    assert {rule["alert"] for rule in rules()} <= set(headings)


def test_alerts_and_dashboard_ask_for_our_metrics_by_their_names() -> None:
    queries = [rule["expr"] for rule in rules()] + dashboard_queries()
    ours = {name for query in queries for name in metrics_in(query) if name.startswith("ray_tav_")}
    assert ours <= set(metrics.defined())
    shown = {name for query in dashboard_queries() for name in metrics_in(query)}
    assert set(metrics.defined()) - shown == {"ray_tav_scheduler_rounds_total"}  # told by an alert alone


def test_the_dashboards_panels_do_not_overlap() -> None:
    cells: set[tuple[int, int]] = set()
    for panel in json.loads((OBSERVABILITY / "dashboard.json").read_text())["panels"]:
        place = panel["gridPos"]
        own = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert not own & cells and max(x for x, _ in own) < 24, panel["title"]
        cells |= own


def test_a_metric_is_defined_once_and_says_what_it_is() -> None:
    assert all(re.fullmatch(r"ray_tav_[a-z_]+", name) and text.endswith(".") for name, text in metrics.defined().items())
    used = [path.read_text() for path in Path(ROOT, "services").rglob("*.py") if path.name != "metrics.py"]
    assert not [text for text in used if "ray.util.metrics" in text or "ray.serve.metrics" in text]
