"""The files that operators load."""

from __future__ import annotations

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
OBSERVABILITY = ROOT / "deploy" / "observability"


def dashboard_queries() -> list[str]:
    """Every query of the dashboard, with Grafana's own variable filled in."""
    board = json.loads((OBSERVABILITY / "dashboard.json").read_text())
    found = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    return [query.replace("$__rate_interval", "1m") for query in found]


def metrics_in(query: str) -> set[str]:
    """Names of the metrics that a query asks for; a histogram by its stem."""
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"\bray_\w+", query)}
