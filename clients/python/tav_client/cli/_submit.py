"""`tav jobs submit` and `tav jobs estimate`: a job's fields as options, each named after its field."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from tav_client import Job, Manifest
from tav_client._estimates import COLUMNS, rows, title
from tav_client.cli._batches import submit_batch
from tav_client.cli._options import options_of
from tav_client.cli.common import (
    JsonOption,
    again,
    client_of,
    interruptible,
    memory_of,
    note_unread,
    pairs,
    print_json,
    print_table,
    size_of,
)
from tav_client.schemas import MemorySetting, TuningParams

BaseOption = Annotated[str | None, typer.Option(help="Base to tune on; left out, the service's own.")]
TuningOptions = options_of(
    TuningParams,
    size=typer.Option(metavar="WxH", help="Pixels, e.g. 512x512."),
    memory=typer.Option(
        metavar="SETTING",
        help=f"auto, or fields such as zero_stage=3,offload_params; there are {', '.join(MemorySetting.model_fields)}.",
    ),
)
Gpus = Annotated[int | None, typer.Option(help="GPUs that tune the clip together; left out, the service's own number.")]


@TuningOptions
def submit(
    ctx: typer.Context,
    clip: Annotated[str | None, typer.Argument(metavar="[CLIP]", help="A video file, or s3://bucket/key.")] = None,
    *,
    manifest: Annotated[
        Path | None, typer.Option(help="Many clips: a YAML file, or a folder of videos with a .txt each, instead of CLIP.")
    ] = None,
    direct: Annotated[bool, typer.Option("--direct", help="Send CLIP to S3 past the service, which limits uploads.")] = False,
    caption: Annotated[str | None, typer.Option(help="What the clip shows; left out, the service's captioner says it.")] = None,
    batch: Annotated[str | None, typer.Option(help="A label for jobs that belong together.")] = None,
    model: Annotated[str | None, typer.Option(help="Registry name; left out, made from the caption.")] = None,
    base: BaseOption = None,
    validation_prompt: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="Sampled after tuning; may be given several times.")
    ] = None,
    truncate: Annotated[
        Literal["end", "error"] | None,
        typer.Option(help="Of a caption or validation prompt longer than the base reads: cut the end, the default, or refuse."),
    ] = None,
    priority: Annotated[int | None, typer.Option(help="Higher goes first.")] = None,
    gpus: Gpus = None,
    gpu_type: Annotated[str | None, typer.Option(help="Only on GPUs of this type, e.g. A100.")] = None,
    queue_deadline_seconds: Annotated[
        int | None, typer.Option("--queue-deadline", metavar="SECONDS", help="It fails if it waits longer for a tuner.")
    ] = None,
    run_deadline_seconds: Annotated[
        int | None, typer.Option("--run-deadline", metavar="SECONDS", help="It fails if it is not done in that time.")
    ] = None,
    metadata: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Kept with the job; may be given several times.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Follow the job until it ends.")] = False,
    json: JsonOption = False,
    **params: Any,
) -> None:
    """Submit a clip; prints the job's id, or with --wait the version made."""
    fields = {
        "model": model,
        "base": base,
        "validation_prompts": validation_prompt or None,
        "truncate": truncate,
        "priority": priority,
        "gpus": gpus,
        "gpu_type": gpu_type,
        "queue_deadline_seconds": queue_deadline_seconds,
        "run_deadline_seconds": run_deadline_seconds,
        "metadata": pairs(metadata or ()) or None,
        **_parse(params),
    }
    client = client_of(ctx)
    if (clip is None) == (manifest is None):
        raise typer.BadParameter("give either CLIP or --manifest.")
    if manifest is not None:
        shared = fields | {"caption": caption}
        submit_batch(ctx, client, Manifest.read(manifest, batch=batch, defaults=shared), wait=wait, json=json)
        return
    assert clip is not None
    options: dict[str, Any] = {name: value for name, value in fields.items() if value is not None}
    with interruptible(f"Nothing was answered yet: {again(ctx, 'jobs', 'list')} tells whether there is a job."):
        if direct and not clip.startswith("s3://"):
            clip = client.uploads.create(clip)
        stored = clip.startswith("s3://")
        job = client.jobs.create(
            None if stored else clip, clip_uri=clip if stored else None, caption=caption, batch=batch, **options
        )
    if not json:
        typer.echo(f"Submitted as job {job.id}, model {job.model}.", err=True)
        note_unread(job.snapshot.unread)
    if wait:
        follow(ctx, job, json=json, each=False)
    elif json:
        print_json(job.snapshot)
    else:
        typer.echo(job.id)
        typer.echo(f"Follow it with {again(ctx, 'jobs', 'watch', job.id)}.", err=True)


def follow(ctx: typer.Context, job: Job, *, json: bool, each: bool) -> None:
    """Follow a job until it ends; with `json`, `each` prints every snapshot instead of the last one."""
    watch, cancel = again(ctx, "jobs", "watch", job.id), again(ctx, "jobs", "cancel", job.id)
    with interruptible(f"Job {job.id} goes on: follow it with {watch}, end it with {cancel}."):
        try:
            job.wait(progress=not (json and each), on_update=print_json if json and each else None)
        finally:
            if json and not each:
                print_json(job.snapshot)
    if not json:
        typer.echo(job.model_ref)


@TuningOptions
def estimate(
    ctx: typer.Context,
    *,
    base: BaseOption = None,
    videos: Annotated[int | None, typer.Option(help="Sampled after tuning; left out, one.")] = None,
    gpus: Gpus = None,
    device: Annotated[str | None, typer.Option(help="A GPU type, such as A100-80G, or cpu; left out, the service's.")] = None,
    json: JsonOption = False,
    **params: Any,
) -> None:
    """Tell what a job would take on the service, in every memory setting that it would be tried in."""
    estimates = client_of(ctx).jobs.estimate(base=base, videos=videos, gpus=gpus, device=device, **_parse(params))
    if json:
        print_json(estimates)
        return
    typer.echo(title(estimates))
    print_table(COLUMNS, rows(estimates))


def _parse(params: dict[str, Any]) -> dict[str, Any]:
    return params | {"size": size_of(params.get("size")), "memory": memory_of(params.get("memory"))}
