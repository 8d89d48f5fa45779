"""Batches on the command line: submitted from a manifest, watched in one table."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable

import typer
from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from tav_client import Batch, JobStatus, Manifest, TavClient, TuningJob
from tav_client._progress import read_job
from tav_client.cli._common import fail, print_json

EVERY_SECONDS = 2.0
"""Between two looks at a batch."""
_ROWS = 30
"""Shown at most on a terminal: open jobs first."""


def submit_batch(client: TavClient, manifest: Manifest, *, wait: bool, json: bool) -> None:
    """Submits every clip; prints the jobs' ids, or with `wait` what became of them."""
    jobs = []
    for number, job in enumerate(client.batches.submit(manifest), 1):
        jobs.append(job.snapshot)
        if not (wait or json):
            typer.echo(job.id)
        typer.echo(f"{number}/{len(manifest.entries)} {job.model}", err=True)
    if wait:
        watch_batch(client, manifest.batch, json=json)
    elif json:
        print_json(jobs)
    else:
        typer.echo(f"Submitted as batch {manifest.batch}; follow it with `tav jobs watch --batch {manifest.batch}`.", err=True)


def watch_batch(client: TavClient, batch: str, *, json: bool) -> None:
    """Shows the batch's jobs until none is open; exit code 1 if any did not succeed."""
    counted = client.batches.get(batch)
    if json:
        seen: dict[str, TuningJob] = {}
        while True:
            for job in _jobs(client, batch):
                if seen.get(job.id) != job:
                    seen[job.id] = job
                    print_json(job)
            counted = client.batches.get(batch)
            if counted.finished:
                break
            time.sleep(EVERY_SECONDS)
    else:
        out = Console(file=sys.stderr)
        with Live(console=out, auto_refresh=False, transient=False) as live:
            last = ""
            while True:
                jobs = list(_jobs(client, batch))
                counted = client.batches.get(batch)
                if out.is_terminal:
                    live.update(_table(counted, jobs), refresh=True)
                elif last != (last := _line(counted)):
                    out.print(last, highlight=False)
                if counted.finished:
                    break
                time.sleep(EVERY_SECONDS)
        for job in jobs:
            typer.echo(f"{job.model}/{job.version}" if job.version else f"{job.id} {job.status}: {_reason(job)}")
    if counted.counts.get(JobStatus.succeeded, 0) < counted.total:
        fail(f"{counted.total - counted.counts.get(JobStatus.succeeded, 0)} of {counted.total} jobs did not succeed.")


def print_batch(batch: Batch, *, json: bool) -> None:
    """The counts, on one line."""
    if json:
        print_json(batch)
    else:
        typer.echo(_line(batch))


def _jobs(client: TavClient, batch: str) -> Iterable[TuningJob]:
    return (job.snapshot for job in client.jobs.list(batch=batch, page_size=100))


def _line(batch: Batch) -> str:
    counts = ", ".join(f"{count} {status.value}" for status, count in batch.counts.items() if count)
    return f"{batch.id}: {batch.total} jobs, {counts}"


def _reason(job: TuningJob) -> str:
    return f"{job.error.code}: {job.error.message}" if job.error else "by a cancel call"


def _table(batch: Batch, jobs: list[TuningJob]) -> Table:
    table = Table(title=_line(batch), title_justify="left", box=None)
    for column in ("model", "", "stage", ""):
        table.add_column(column, overflow="ellipsis", no_wrap=True)
    order = (JobStatus.running, JobStatus.failed, JobStatus.queued, JobStatus.cancelled, JobStatus.succeeded)
    shown = sorted(jobs, key=lambda job: (order.index(job.status), -job.progress))
    for job in shown[:_ROWS]:
        reading = read_job(job)
        detail = job.error.message if job.error else reading.detail
        table.add_row(job.model, ProgressBar(total=1.0, completed=reading.fraction, width=24), reading.stage, detail)
    if len(shown) > _ROWS:
        table.caption = f"and {len(shown) - _ROWS} more"
    return table
