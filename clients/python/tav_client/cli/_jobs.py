"""`tav jobs`: list tuning jobs, follow, cancel and delete them."""

from __future__ import annotations

from itertools import islice
from typing import Annotated

import typer

from tav_client._estimates import setting
from tav_client._progress import duration, read_job
from tav_client._texts import harmless
from tav_client.cli._batches import print_batch, watch_batch
from tav_client.cli._submit import estimate, follow, submit
from tav_client.cli.common import (
    JsonOption,
    again,
    client_of,
    group,
    interruptible,
    pairs,
    print_fields,
    print_json,
    print_table,
    unread_line,
    when,
)
from tav_client.schemas import ClipInfo, JobStatus, TuningJob

app = group("Submit clips to be tuned, and follow them.")

JobId = Annotated[str, typer.Argument(metavar="ID", help="A tuning job's id.")]
OptionalJobId = Annotated[str | None, typer.Argument(metavar="[ID]", help="A tuning job's id.")]
BatchOption = Annotated[str | None, typer.Option(help="All jobs of this batch instead.")]


app.command()(submit)
app.command()(estimate)


@app.command("list")
def list_(
    ctx: typer.Context,
    status: Annotated[JobStatus | None, typer.Option(help="Only jobs that stand there.")] = None,
    model: Annotated[str | None, typer.Option(help="Only jobs of this model.")] = None,
    batch: Annotated[str | None, typer.Option(help="Only jobs of this batch.")] = None,
    metadata: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Only jobs with this; may be given several times.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, newest first.")] = 20,
    json: JsonOption = False,
) -> None:
    """List jobs, newest first."""
    jobs = client_of(ctx).jobs.list(
        status=status, model=model, batch=batch, metadata=pairs(metadata or ()), page_size=min(limit, 100)
    )
    snapshots = [job.snapshot for job in islice(jobs, limit)]
    if json:
        print_json(snapshots)
        return
    rows = [
        (job.id, job.status, f"{job.progress:.0%}", job.model, when(job.created_at), job.caption or "") for job in snapshots
    ]
    print_table(("ID", "STATUS", "DONE", "MODEL", "CREATED", "CAPTION"), rows)


@app.command()
def show(ctx: typer.Context, id: JobId, json: JsonOption = False) -> None:
    """Show a job."""
    job = client_of(ctx).jobs.get(id).snapshot
    if json:
        print_json(job)
    else:
        print_fields(_fields(job))


@app.command()
def watch(ctx: typer.Context, id: OptionalJobId = None, *, batch: BatchOption = None, json: JsonOption = False) -> None:
    """Follow a job, or a batch in one table, until it ends; --json prints every snapshot on a line of its own."""
    client = client_of(ctx)
    if one_of(id, batch):
        follow(ctx, client.jobs.get(id or ""), json=json, each=True)
    else:
        watch_batch(ctx, client, batch or "", json=json)


@app.command()
def summary(ctx: typer.Context, *, batch: Annotated[str, typer.Option(help="Which.")], json: JsonOption = False) -> None:
    """Count a batch's jobs by status."""
    print_batch(client_of(ctx).batches.get(batch), json=json)


@app.command()
def cancel(ctx: typer.Context, id: OptionalJobId = None, *, batch: BatchOption = None, json: JsonOption = False) -> None:
    """End a job, or all of a batch; running ones stop at their next step."""
    client = client_of(ctx)
    if not one_of(id, batch):
        print_batch(client.batches.cancel(batch or ""), json=json)
        return
    job = client.jobs.cancel(id or "").snapshot
    if json:
        print_json(job)
    elif job.status.final:
        typer.echo(f"{job.id} {job.status}")
    else:
        typer.echo(f"{job.id} {job.status}: it stops at its next step")


@app.command()
def retry(ctx: typer.Context, id: JobId, json: JsonOption = False) -> None:
    """Submit a failed or cancelled job again; prints the new job's id."""
    job = client_of(ctx).jobs.retry(id)
    if json:
        print_json(job.snapshot)
    else:
        typer.echo(job.id)


@app.command()
def delete(ctx: typer.Context, id: JobId) -> None:
    """Remove a job that has ended, with its version, videos, log and clip."""
    client_of(ctx).jobs.delete(id)
    typer.echo(f"{id} deleted")


@app.command()
def logs(
    ctx: typer.Context,
    id: JobId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job has ended.")] = False,
) -> None:
    """Print what the job's tuners have said so far."""
    jobs = client_of(ctx).jobs
    if not follow:
        typer.echo(harmless(jobs.logs(id)), nl=False)
        return
    with interruptible(f"Job {id} goes on: end it with {again(ctx, 'jobs', 'cancel', id)}."):
        for text in jobs.follow_logs(id):
            typer.echo(harmless(text), nl=False)


def one_of(id: str | None, batch: str | None) -> bool:
    """Return whether a command is about a job, and not a batch."""
    if (id is None) == (batch is None):
        raise typer.BadParameter("give either a job's ID or --batch.")
    return id is not None


def _fields(job: TuningJob) -> dict[str, object]:
    params = job.params.model_dump(exclude_none=True, exclude_unset=True)
    return {
        "id": job.id,
        "status": job.status,
        "progress": read_job(job).line(),
        "error": f"{job.error.code}: {job.error.message}" if job.error else None,
        "caption": job.caption if job.caption_source == "given" else f"{job.caption or ''} (automatic)".strip(),
        "not read": unread_line(job.unread),
        "model": job.model if job.version is None else f"{job.model}/{job.version}",
        "base": job.base,
        "memory": setting(job.estimate.memory) if job.estimate else None,
        "estimate": duration(job.estimate.seconds) if job.estimate else None,
        "gpus": f"{job.gpus} {job.gpu_type}" if job.gpu_type else (job.gpus if job.gpus > 1 else None),
        "deadlines": "  ".join(
            f"{name} {duration(seconds)}"
            for name, seconds in (("queue", job.queue_deadline_seconds), ("run", job.run_deadline_seconds))
            if seconds
        ),
        "clip": _clip(job.clip),
        "read as": "; ".join(job.clip.notes),
        "params": "  ".join(f"{name}={value}" for name, value in params.items()),
        "validation": "; ".join(job.validation_prompts),
        "batch": job.batch,
        "attempt": job.attempt,
        "created": when(job.created_at),
        "started": when(job.started_at),
        "finished": when(job.finished_at),
        "metadata": "  ".join(f"{name}={value}" for name, value in job.metadata.items()),
        "mlflow": job.mlflow_url,
    }


def _clip(clip: ClipInfo) -> str:
    lasts = f" ({clip.duration:.1f} s)" if clip.duration is not None else ""
    codec = f", {clip.codec}" if clip.codec else ""
    return f"{clip.width}x{clip.height}, {clip.num_frames} frames at {clip.fps:.4g}/s{lasts}{codec}  {clip.uri}"
