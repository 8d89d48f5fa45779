"""`tav jobs submit` and `tav jobs estimate`: a job's fields as options, each named after its field."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from tav_client import Job, Manifest
from tav_client._estimates import COLUMNS, rows, title
from tav_client.cli._batches import submit_batch
from tav_client.cli._common import (
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

BaseOption = Annotated[str | None, typer.Option(help="Base to tune on; left out, the service's own.")]
Steps = Annotated[int | None, typer.Option(help="Optimizer steps.")]
NumFrames = Annotated[int | None, typer.Option(help="Frames taken from the clip.")]
Size = Annotated[str | None, typer.Option(metavar="WxH", help="Pixels, e.g. 512x512.")]
FrameStart = Annotated[int | None, typer.Option(help="First source frame used.")]
FrameStride = Annotated[int | None, typer.Option(help="Take every n-th source frame; left out, spread over the clip.")]
LearningRate = Annotated[float | None, typer.Option(help="AdamW's constant rate.")]
Seed = Annotated[int | None, typer.Option(help="Everything random is drawn from it.")]
Attention = Annotated[str | None, typer.Option(help="ST-Attn mode: sparse_causal, causal, full or frame.")]
GroupNorm = Annotated[str | None, typer.Option(help="ResNet GroupNorm over the video or each frame: video or frame.")]
Checkpointing = Annotated[
    bool | None,
    typer.Option("--gradient-checkpointing/--no-gradient-checkpointing", help="Recompute activations to save memory."),
]
Memory = Annotated[
    str | None,
    typer.Option(
        metavar="SETTING",
        help="auto, or fields such as zero_stage=3,offload_optimizer,offload_params,gradient_checkpointing,precision=bf16.",
    ),
]
Gpus = Annotated[int | None, typer.Option(help="GPUs that tune the clip together; left out, the service's own number.")]


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
    steps: Steps = None,
    num_frames: NumFrames = None,
    size: Size = None,
    frame_start: FrameStart = None,
    frame_stride: FrameStride = None,
    learning_rate: LearningRate = None,
    seed: Seed = None,
    attention: Attention = None,
    group_norm: GroupNorm = None,
    gradient_checkpointing: Checkpointing = None,
    memory: Memory = None,
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
        "steps": steps,
        "num_frames": num_frames,
        "size": size_of(size),
        "frame_start": frame_start,
        "frame_stride": frame_stride,
        "learning_rate": learning_rate,
        "seed": seed,
        "attention": attention,
        "group_norm": group_norm,
        "gradient_checkpointing": gradient_checkpointing,
        "memory": memory_of(memory),
    }
    client = client_of(ctx)
    if (clip is None) == (manifest is None):
        raise typer.BadParameter("give either CLIP or --manifest.")
    if manifest is not None:
        shared = fields | {"caption": caption}
        submit_batch(ctx, client, Manifest.read(manifest, batch=batch, defaults=shared), wait=wait, json=json)
        return
    assert clip is not None
    given: dict[str, Any] = {name: value for name, value in fields.items() if value is not None}
    with interruptible(f"Nothing was answered yet: {again(ctx, 'jobs', 'list')} tells whether there is a job."):
        if direct and not clip.startswith("s3://"):
            clip = client.uploads.create(clip)
        stored = clip.startswith("s3://")
        job = client.jobs.create(
            None if stored else clip, clip_uri=clip if stored else None, caption=caption, batch=batch, **given
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
    """Follows a job; `each` prints every snapshot as JSON instead of the last one."""
    watch, cancel = again(ctx, "jobs", "watch", job.id), again(ctx, "jobs", "cancel", job.id)
    with interruptible(f"Job {job.id} goes on: follow it with {watch}, end it with {cancel}."):
        try:
            job.wait(progress=not (json and each), on_update=print_json if json and each else None)
        finally:
            if json and not each:
                print_json(job.snapshot)
    if not json:
        typer.echo(job.model_ref)


def estimate(
    ctx: typer.Context,
    *,
    base: BaseOption = None,
    steps: Steps = None,
    num_frames: NumFrames = None,
    size: Size = None,
    frame_start: FrameStart = None,
    frame_stride: FrameStride = None,
    learning_rate: LearningRate = None,
    seed: Seed = None,
    attention: Attention = None,
    group_norm: GroupNorm = None,
    gradient_checkpointing: Checkpointing = None,
    memory: Memory = None,
    videos: Annotated[int | None, typer.Option(help="Sampled after tuning; left out, one.")] = None,
    gpus: Gpus = None,
    device: Annotated[str | None, typer.Option(help="A GPU type, such as A100-80G, or cpu; left out, the service's.")] = None,
    json: JsonOption = False,
) -> None:
    """Tell what a job would take on the service, in every memory setting that it would be tried in."""
    options: dict[str, Any] = {
        "steps": steps,
        "num_frames": num_frames,
        "size": size_of(size),
        "frame_start": frame_start,
        "frame_stride": frame_stride,
        "learning_rate": learning_rate,
        "seed": seed,
        "attention": attention,
        "group_norm": group_norm,
        "gradient_checkpointing": gradient_checkpointing,
        "memory": memory_of(memory),
    }
    found = client_of(ctx).jobs.estimate(base=base, videos=videos, gpus=gpus, device=device, **options)
    if json:
        print_json(found)
        return
    typer.echo(title(found))
    print_table(COLUMNS, rows(found))
