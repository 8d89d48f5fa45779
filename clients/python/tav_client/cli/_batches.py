"""Batches: submitted from a manifest, watched in one table."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable

import typer
from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tav_client import Batch, ClipsRefused, JobStatus, Manifest, TavClient, TuningJob
from tav_client._progress import read_job
from tav_client._texts import one_line
from tav_client.cli.common import again, fail, interruptible, print_json

EVERY_SECONDS = 2.0
"""Interval between two requests about a batch."""
_ROWS = 30
"""At most so many jobs are shown on a terminal, open ones first."""


def submit_batch(ctx: typer.Context, client: TavClient, manifest: Manifest, *, wait: bool, json: bool) -> None:
    """Submit every clip; print the jobs' ids, or with `wait` how they ended. Exit code 1 if clips were refused."""
    total = len(manifest.entries)
    watch = again(ctx, "jobs", "watch", "--batch", manifest.batch)
    cancel = again(ctx, "jobs", "cancel", "--batch", manifest.batch)
    jobs: list[TuningJob] = []
    refused: ClipsRefused | None = None
    with interruptible(f"Not all of batch {manifest.batch} is submitted: submit it again to go on, or end it with {cancel}."):
        try:
            for job in client.batches.submit(manifest):
                jobs.append(job.snapshot)
                if not (wait or json):
                    typer.echo(job.id)
                typer.echo(f"{len(jobs)}/{total} {job.model}", err=True)
        except ClipsRefused as error:
            refused = error
    if jobs and wait:
        try:
            watch_batch(ctx, client, manifest.batch, json=json)
        finally:
            if refused is not None:
                typer.echo(f"tav: {one_line(refused)}", err=True)
    elif json:
        print_json(jobs)
    elif jobs:
        typer.echo(f"Submitted as batch {manifest.batch}; follow it with {watch}.", err=True)
    if refused is not None:
        raise typer.Exit(1) if jobs and wait else refused


def watch_batch(ctx: typer.Context, client: TavClient, batch: str, *, json: bool) -> None:
    """Show the batch's jobs until none is open; exit code 1 if any did not succeed."""
    watch, cancel = (again(ctx, "jobs", word, "--batch", batch) for word in ("watch", "cancel"))
    with interruptible(f"Batch {batch} goes on: follow it with {watch}, end it with {cancel}."):
        counted = _watch_as_json(client, batch) if json else _watch(client, batch)
    if counted.counts.get(JobStatus.succeeded, 0) < counted.total:
        fail(f"{counted.total - counted.counts.get(JobStatus.succeeded, 0)} of {counted.total} jobs did not succeed.")


def print_batch(batch: Batch, *, json: bool) -> None:
    """Print the counts on one line."""
    if json:
        print_json(batch)
    else:
        typer.echo(_line(batch))


def _watch_as_json(client: TavClient, batch: str) -> Batch:
    counted = client.batches.get(batch)
    seen: dict[str, TuningJob] = {}
    while True:
        for job in _jobs(client, batch):
            if seen.get(job.id) != job:
                seen[job.id] = job
                print_json(job)
        counted = client.batches.get(batch)
        if counted.finished:
            return counted
        time.sleep(EVERY_SECONDS)


def _watch(client: TavClient, batch: str) -> Batch:
    counted = client.batches.get(batch)
    out = Console(file=sys.stderr)
    with Live(console=out, auto_refresh=False, transient=False) as live:
        last = ""
        while True:
            jobs = list(_jobs(client, batch))
            counted = client.batches.get(batch)
            if out.is_terminal:
                live.update(_table(counted, jobs), refresh=True)
            elif last != (last := _line(counted)):
                out.print(last, highlight=False, markup=False)
            if counted.finished:
                break
            time.sleep(EVERY_SECONDS)
    for job in jobs:
        typer.echo(f"{job.model}/{job.version}" if job.version else one_line(f"{job.id} {job.status}: {_reason(job)}"))
    return counted


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
        detail = Text(one_line(job.error.message if job.error else reading.detail))  # not markup
        table.add_row(job.model, ProgressBar(total=1.0, completed=reading.fraction, width=24), reading.stage, detail)
    if len(shown) > _ROWS:
        table.caption = f"and {len(shown) - _ROWS} more"
    return table
