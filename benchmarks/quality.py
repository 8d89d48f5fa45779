"""Publishes a run of the offline suite as the project's quality figures: `make quality` runs both.

tav eval run --suite offline --methods tuned,no_st_attention,… --out RUN
python -m benchmarks.quality RUN                 # into benchmarks/results/quality.{json,md,jpg}
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tav.eval.layout import read_frames
from tav.eval.offline.suite import offline
from tav.eval.results import Results, RunFile

RESULTS = Path(__file__).parent / "results"
BARS: dict[str, dict[str, float]] = {
    "colour": {"edited": 0.95, "kept": 0.95},
    "shape": {"edited": 0.85, "kept": 0.95},
    "ground": {"edited": 0.95, "kept": 0.95},
    "colour+ground": {"edited": 0.95, "kept": 0.95},
}
"""What the tuned method's means over frames must reach, by kind of edit."""
MEAN_PATH, WORST_PATH = 0.95, 0.8
"""Over all edits."""


def missed(summary: dict[str, Any]) -> list[str]:
    """The bars that the tuned method of a run's `summary.json` does not reach, one sentence each."""
    means = summary["means"]["tuned"]
    words = [
        f"{edit}: {measure} {means[edit][measure]['mean']:.1%}, bar {bar:.0%}"
        for edit, bars in BARS.items()
        for measure, bar in bars.items()
        if means[edit][measure]["mean"] < bar
    ]
    path = means["all edits"]["path"]
    if path["mean"] < MEAN_PATH:
        words.append(f"mean path {path['mean']:.3f}, bar {MEAN_PATH}")
    words += [
        f"{v['clip']} {v['edit']} seed {v['seed']}: path {v['scores']['path']:.2f}, bar {WORST_PATH}"
        for v in summary["videos"]
        if v["method"] == "tuned" and v["scores"]["path"] < WORST_PATH
    ]
    return words


def sheet(run: Path, summary: dict[str, Any], method: str = "tuned") -> Image.Image:
    """The first seed's videos of one method, each a row of frames, under its clip's reconstruction."""
    suite = offline()
    seed = min(v["seed"] for v in summary["videos"])
    results = Results(run, suite)
    cases = [case for case in suite.cases if case.seed == seed and results.record(method, case)]
    rows = [np.concatenate(list(read_frames(results.frames_folder(method, case))), axis=1) for case in cases]
    return Image.fromarray(np.concatenate(rows))


def about(summary: dict[str, Any]) -> str:
    """How it was made, in Markdown."""
    run = RunFile.model_validate(summary["run"])
    machine = run.visits[-1].machine
    lines = [f"Bars missed: {'; '.join(missed(summary)) or 'none'}.", ""]
    lines += [
        f"Base {run.settings.base} `{(run.settings.base_fingerprint or '')[:12]}`, settings `{json.dumps(run.defaults)}`."
    ]
    lines += [f"{machine.get('processor', '')}, {machine.get('cpus')} cores, {machine.get('processes', '')}.", ""]
    lines += [f"    {visit.command}" for visit in run.visits]
    return "\n".join(lines) + "\n"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Publish a run of the offline suite as the project's quality figures.")
    parser.add_argument("run", type=Path, help="the folder given to `tav eval run --out`")
    parser.add_argument("--out", type=Path, default=RESULTS / "quality", help="without its suffix")
    asked = parser.parse_args()
    summary = json.loads((asked.run / "summary.json").read_text())
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.with_suffix(".json").write_text((asked.run / "summary.json").read_text())
    table = (asked.run / "summary.md").read_text()
    asked.out.with_suffix(".md").write_text(f"# Quality of edits\n\n{table}\n{about(summary)}")
    sheet(asked.run, summary).save(asked.out.with_suffix(".jpg"), quality=85)
    print(about(summary))


if __name__ == "__main__":
    main()
