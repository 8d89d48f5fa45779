"""`tav jobs`"""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from tav_client import Job, Manifest
from tav_client._progress import read_job
from tav_client.cli._batches import print_batch, submit_batch, watch_batch
from tav_client.cli._common import (
    JsonOption,
    client_of,
    group,
    memory_of,
    pairs,
    print_fields,
    print_json,
    print_table,
    size_of,
    when,
)
from tav_client.schemas import JobStatus, TuningJob

app = group("Submit clips to be tuned, and follow them.")

JobId = Annotated[str, typer.Argument(metavar="ID", help="A tuning job's id.")]
OptionalJobId = Annotated[str | None, typer.Argument(metavar="[ID]", help="A tuning job's id.")]
BatchOption = Annotated[str | None, typer.Option(help="All jobs of this batch instead.")]


@app.command()
def submit(
    ctx: typer.Context,
    clip: Annotated[str | None, typer.Argument(metavar="[CLIP]", help="A video file, or s3://bucket/key.")] = None,
    *,
    manifest: Annotated[
        Path | None, typer.Option(help="Many clips: a YAML file, or a folder of videos with a .txt each, instead of CLIP.")
    ] = None,
    caption: Annotated[str | None, typer.Option(help="What the clip shows; left out, the service's captioner says it.")] = None,
    batch: Annotated[str | None, typer.Option(help="A label for jobs that belong together.")] = None,
    model: Annotated[str | None, typer.Option(help="Registry name; left out, made from the caption.")] = None,
    base: Annotated[str | None, typer.Option(help="Base to tune on; left out, the service's own.")] = None,
    steps: Annotated[int | None, typer.Option(help="Optimizer steps.")] = None,
    num_frames: Annotated[int | None, typer.Option(help="Frames taken from the clip.")] = None,
    size: Annotated[str | None, typer.Option(metavar="WxH", help="Pixels, e.g. 512x512.")] = None,
    frame_start: Annotated[int | None, typer.Option(help="First source frame used.")] = None,
    frame_stride: Annotated[int | None, typer.Option(help="Take every n-th source frame.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="AdamW's constant rate.")] = None,
    seed: Annotated[int | None, typer.Option(help="Everything random is drawn from it.")] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            metavar="SETTING",
            help="auto, or fields such as zero_stage=3,offload_optimizer,offload_params,gradient_checkpointing,precision=bf16.",
        ),
    ] = None,
    validation_prompt: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="Sampled after tuning; may be given several times.")
    ] = None,
    priority: Annotated[int | None, typer.Option(help="Higher goes first.")] = None,
    metadata: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Kept with the job; may be given several times.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Follow the job until it ends.")] = False,
    json: JsonOption = False,
) -> None:
    """Submit a clip; prints the job's id, or with --wait the version made."""
    fields = {
        "model": model,
        "base": base,
        "validation_prompts": validation_prompt or None,
        "priority": priority,
        "metadata": pairs(metadata or ()) or None,
        "steps": steps,
        "num_frames": num_frames,
        "size": size_of(size),
        "frame_start": frame_start,
        "frame_stride": frame_stride,
        "learning_rate": learning_rate,
        "seed": seed,
        "memory": memory_of(memory),
    }
    client = client_of(ctx)
    if (clip is None) == (manifest is None):
        raise typer.BadParameter("give either CLIP or --manifest.")
    if manifest is not None:
        shared = fields | {"caption": caption}
        submit_batch(client, Manifest.read(manifest, batch=batch, defaults=shared), wait=wait, json=json)
        return
    assert clip is not None
    stored = clip.startswith("s3://")
    given: dict[str, Any] = {name: value for name, value in fields.items() if value is not None}
    job = client.jobs.create(None if stored else clip, clip_uri=clip if stored else None, caption=caption, batch=batch, **given)
    if wait:
        _wait(job, json=json, each=False)
    elif json:
        print_json(job.snapshot)
    else:
        typer.echo(job.id)
        typer.echo(f"Submitted as model {job.model}; follow it with `tav jobs watch {job.id}`.", err=True)


@app.command("list")
def list_(
    ctx: typer.Context,
    status: Annotated[JobStatus | None, typer.Option(help="Only jobs that stand there.")] = None,
    model: Annotated[str | None, typer.Option(help="Only jobs of this model.")] = None,
    batch: Annotated[str | None, typer.Option(help="Only jobs of this batch.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, newest first.")] = 20,
    json: JsonOption = False,
) -> None:
    """List jobs, newest first."""
    jobs = client_of(ctx).jobs.list(status=status, model=model, batch=batch, page_size=min(limit, 100))
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
        _wait(client.jobs.get(id or ""), json=json, each=True)
    else:
        watch_batch(client, batch or "", json=json)


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
def logs(ctx: typer.Context, id: JobId) -> None:
    """Print what the job's tuners have said so far."""
    typer.echo(client_of(ctx).jobs.logs(id), nl=False)


def one_of(id: str | None, batch: str | None) -> bool:
    """Whether it is about a job, and not a batch."""
    if (id is None) == (batch is None):
        raise typer.BadParameter("give either a job's ID or --batch.")
    return id is not None


def _wait(job: Job, *, json: bool, each: bool) -> None:
    """Follows a job; `each` prints every snapshot as JSON instead of the last one."""
    try:
        job.wait(progress=not (json and each), on_update=print_json if json and each else None)
    finally:
        if json and not each:
            print_json(job.snapshot)
    if not json:
        typer.echo(job.model_ref)


def _fields(job: TuningJob) -> dict[str, object]:
    params = job.params.model_dump(exclude_none=True, exclude_unset=True)
    return {
        "id": job.id,
        "status": job.status,
        "progress": read_job(job).line(),
        "error": f"{job.error.code}: {job.error.message}" if job.error else None,
        "caption": job.caption if job.caption_source == "given" else f"{job.caption or ''} (automatic)".strip(),
        "model": job.model if job.version is None else f"{job.model}/{job.version}",
        "base": job.base,
        "clip": f"{job.clip.width}x{job.clip.height}, {job.clip.num_frames} frames at {job.clip.fps:g}/s  {job.clip.uri}",
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
