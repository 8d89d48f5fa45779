"""One HTML file that shows a run: tables by category, methods side by side, contact sheets, and what it was made with."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from tav.eval.layout import read_frames
from tav.eval.results import Record, Results, RunFile, write_text
from tav.eval.scores import MEASURES
from tav.eval.statistics import ALL_EDITS, CONFIDENCE, FEWEST_TO_RESAMPLE, RESAMPLES, Estimate, Table, differences, table
from tav.eval.suite import Case, Measure
from tav.video import Frames

_SHOWN = 8
"""Frames of a video on its contact sheet."""
_SIDE = 96


@dataclass(frozen=True)
class Row:
    """One line of a contact sheet."""

    label: str
    picture: str
    """A data URI."""
    scores: dict[str, str]


@dataclass(frozen=True)
class Sheet:
    """The videos of one edit of one clip, under the source."""

    clip: str
    edit: str
    prompt: str
    seed: int
    rows: list[Row]


def write_report(results: Results, videos: Sequence[tuple[str, Case]], about: Mapping[str, str]) -> Path:
    """Write `report.html`, and the same figures as `summary.json` and `summary.md`.

    Args:
        results: the folder.
        videos: `(method, case)` of each video to show; all scored.
        about: one sentence on each method.

    Returns:
        Where the HTML is.
    """
    run = results.run_file()
    records = [record for method, case in videos if (record := results.record(method, case)) and record.scores is not None]
    measures = shown_measures(results, records)
    means = table(records, measures)
    methods = list(means)
    against = differences(records, measures, methods[0]) if len(methods) > 1 else {}
    page = _template().render(
        title=f"{results.suite.name}: {', '.join(methods)}",
        suite=results.suite,
        run=run,
        measures=measures,
        methods=methods,
        about=about,
        reference=methods[0],
        means=means,
        against=against,
        categories=_categories(means),
        overall=ALL_EDITS,
        seconds=_seconds(records),
        sheets=_sheets(results, videos, measures),
        models=sorted({_models(record) for record in records}),
        confidence=f"{CONFIDENCE:.0%}",
        interval=f"Student's t below {FEWEST_TO_RESAMPLE}, from there on {RESAMPLES} bootstrap resamples",
        clips=len({record.clip for record in records}),
        videos=len(records),
    )
    write_text(results.out / "report.html", page)
    write_text(results.out / "summary.md", markdown(means, measures))
    write_text(results.out / "summary.json", _json(run, means, against, records))
    return results.out / "report.html"


def shown_measures(results: Results, records: Sequence[Record]) -> list[Measure]:
    """List the suite's own measures first, then those of any video; only those that some video has."""
    names = {name for record in records for name in record.scores or {}}
    return [measure for measure in (*results.suite.measures, *MEASURES) if measure.name in names]


def markdown(means: Table, measures: Sequence[Measure]) -> str:
    """Write means, intervals and worst values as a Markdown table."""
    names = [f"{m.name.replace('_', ' ')} {'↑' if m.better == 'higher' else '↓'}" for m in measures]
    lines = [
        f"| method | edits | {' | '.join(names)} |",
        f"| --- | --- |{' --- |' * len(measures)}",
    ]
    for method, categories in means.items():
        for category, estimates in categories.items():
            cells = [plain(estimates[m.name], m) if m.name in estimates else "" for m in measures]
            lines.append(f"| {method} | {category} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def plain(value: Estimate, measure: Measure) -> str:
    """Write a value as `0.953 (0.921 … 0.978), worst 0.850`."""
    mean, worst = format(value.mean, measure.format), format(value.worst, measure.format)
    if value.low is None or value.high is None:
        return f"{mean}, worst {worst}"
    return f"{mean} ({format(value.low, measure.format)} … {format(value.high, measure.format)}), worst {worst}"


def _template() -> Any:
    environment = Environment(loader=PackageLoader("tav.eval", "."), autoescape=True, undefined=StrictUndefined)
    environment.filters["score_signed"] = lambda value, measure, sign: format(value, sign + measure.format)
    environment.filters["when"] = lambda unix: datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%d %H:%M UTC")
    return environment.get_template("report.html.j2")


def _categories(means: Table) -> list[str]:
    every = dict.fromkeys(category for categories in means.values() for category in categories)
    return sorted(every, key=lambda category: category == ALL_EDITS)


def _seconds(records: Sequence[Record]) -> dict[str, float]:
    """Mean time to sample a video, of each method of which it is known."""
    known: dict[str, list[float]] = {}
    for record in records:
        if record.seconds is not None:
            known.setdefault(record.method, []).append(record.seconds)
    return {method: float(np.mean(values)) for method, values in known.items()}


def _models(record: Record) -> str:
    with_ = record.scored_with.model_dump(exclude_none=True) if record.scored_with else {}
    return (
        ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in with_.items())
        or "none: flow and the suite's own scores"
    )


def _sheets(results: Results, videos: Sequence[tuple[str, Case]], measures: Sequence[Measure]) -> list[Sheet]:
    """Show every edit of every clip once: the first seed, all methods."""
    chosen: dict[tuple[str, str], tuple[Case, list[str]]] = {}
    for method, case in videos:
        first, methods = chosen.setdefault((case.clip, case.edit), (case, []))
        if case.seed == first.seed:
            methods.append(method)
    sheets = []
    for (clip, edit), (case, methods) in chosen.items():
        rows: list[Row] = []
        for method in methods:
            frames = read_frames(results.frames_folder(method, case))
            if not rows:
                rows.append(Row(f"source: {results.suite.clip(clip).caption}", strip(results.source(clip, frames)), {}))
            scores = getattr(results.record(method, case), "scores", None) or {}
            shown = {m.name: format(scores[m.name], m.format) for m in measures if m.name in scores}
            rows.append(Row(method, strip(frames), shown))
        sheets.append(Sheet(clip, edit, case.prompt, case.seed, rows))
    return sheets


def strip(frames: Frames) -> str:
    """Put some frames side by side, evenly chosen, as the data URI of a jpg."""
    chosen = frames[np.linspace(0, len(frames) - 1, min(_SHOWN, len(frames))).round().astype(int)]
    width = max(1, round(_SIDE * frames.shape[2] / frames.shape[1]))
    picture = Image.new("RGB", (len(chosen) * (width + 2) - 2, _SIDE), "white")
    for i, frame in enumerate(chosen):
        picture.paste(Image.fromarray(frame).resize((width, _SIDE), Image.Resampling.BICUBIC), (i * (width + 2), 0))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _json(run: RunFile, means: Table, against: Table, records: Sequence[Record]) -> str:
    def dumped(some: Table) -> dict[str, Any]:
        return {
            m: {c: {n: asdict(e) for n, e in estimates.items()} for c, estimates in rows.items()} for m, rows in some.items()
        }

    whole = {
        "run": run.model_dump(),
        "means": dumped(means),
        "differences": dumped(against),
        "videos": [record.model_dump(exclude_none=True) for record in records],
    }
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"
