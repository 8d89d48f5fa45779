"""Shows how far a job or a video is: a bar in a notebook or on a terminal, otherwise a line now and then on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TextIO

from tav_client import _notebook, schemas
from tav_client._texts import one_line

LINE_EVERY = 0.1
"""Of the whole, between two lines where there is no terminal."""


_WAITS_FOR = {
    schemas.WaitsFor.tuner_start: "a tuner is starting",
    schemas.WaitsFor.free_tuner: "all tuners are busy",
    schemas.WaitsFor.own_jobs: "as many of the tenant's jobs run as may",
    schemas.WaitsFor.pause: "it is tried again after a pause",
}


@dataclass(frozen=True)
class Reading:
    """What is shown of one snapshot."""

    stage: str
    fraction: float
    detail: str

    def line(self) -> str:
        """Write it as plain text."""
        return f"{self.fraction:4.0%}  " + "  ".join(one_line(part) for part in (self.stage, self.detail) if part)


def read_job(job: schemas.TuningJob) -> Reading:
    """Read phase, step, loss and remaining time; of one that waits, for what; of one that ended early, where."""
    details = []
    if job.status is schemas.JobStatus.queued and job.waits_for is not None:
        details.append(_WAITS_FOR[job.waits_for])
    if job.status.final and job.phase is not None:
        details.append(f"in {job.phase.value}" + (f" {job.step}/{job.total_steps}" if job.total_steps else ""))
    if job.phase is not None and job.total_steps and not job.status.final:
        details.append(f"{job.step}/{job.total_steps}")
    if job.loss is not None:
        details.append(f"loss {job.loss:.4f}")
    if job.eta_seconds is not None and not job.status.final:
        details.append(f"about {duration(job.eta_seconds)} left")
    if job.status is schemas.JobStatus.succeeded:
        details.append(f"{job.model}/{job.version}")
    stage = job.phase.value if job.status is schemas.JobStatus.running and job.phase else job.status.value
    return Reading(stage, 1.0 if job.status is schemas.JobStatus.succeeded else job.progress, "  ".join(details))


def read_video(video: schemas.Video) -> Reading:
    """Read status and percent."""
    return Reading(video.status.value.replace("_", " "), video.progress / 100, video.prompt)


def duration(seconds: float) -> str:
    """Write a duration as `8 s`, `2 min 05 s`, `1 h 30 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


@contextmanager
def watching_job(enabled: bool) -> Iterator[Callable[[schemas.TuningJob], None]]:
    """Make a function to call with every snapshot of a job; it does nothing unless enabled."""
    with _display(enabled, sys.stderr) as show:
        yield lambda job: show(read_job(job))


@contextmanager
def watching_video(enabled: bool) -> Iterator[Callable[[schemas.Video], None]]:
    """Make a function to call with every snapshot of a video; it does nothing unless enabled."""
    with _display(enabled, sys.stderr) as show:
        yield lambda video: show(read_video(video))


@contextmanager
def watching_download(enabled: bool) -> Iterator[Callable[[int, int | None], None]]:
    """Make a function to call with the bytes that have come and those that will; it does nothing unless enabled."""
    with _display(enabled, sys.stderr) as show:
        yield lambda done, total: show(Reading("download", done / total if total else 0.0, f"{done / 1e6:.1f} MB"))


@contextmanager
def _display(enabled: bool, out: TextIO) -> Iterator[Callable[[Reading], None]]:
    if not enabled:
        yield lambda _: None
    elif _notebook.in_notebook():
        place = _notebook.moving()
        yield lambda now: place(_notebook.bar(now.fraction, now.line()))
    elif out.isatty():
        with _bar(out) as show:
            yield show
    else:
        yield _lines(out)


def _lines(out: TextIO) -> Callable[[Reading], None]:
    last: Reading | None = None

    def show(now: Reading) -> None:
        nonlocal last
        if last is None or now.stage != last.stage or now.fraction >= last.fraction + LINE_EVERY:
            print(now.line(), file=out, flush=True)
            last = now

    return show


@contextmanager
def _bar(out: TextIO) -> Iterator[Callable[[Reading], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(finished_text=" "),
        TextColumn("{task.description:<12}", markup=False),
        BarColumn(bar_width=30),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[detail]}", style="dim", markup=False),
    )
    with Progress(*columns, console=Console(file=out), transient=False) as progress:
        task = progress.add_task("waiting", total=1.0, detail="")

        def show(now: Reading) -> None:
            progress.update(task, description=now.stage, completed=now.fraction, detail=one_line(now.detail))

        yield show
