"""`tav videos`"""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from tav_client._content import format_of_name
from tav_client._progress import read_video
from tav_client.cli._common import (
    JsonOption,
    again,
    client_of,
    group,
    interruptible,
    note_unread,
    print_fields,
    print_json,
    print_table,
    unread_line,
    when,
)
from tav_client.schemas import Video

app = group("Make videos of edited prompts, and fetch them.")

VideoId = Annotated[str, typer.Argument(metavar="ID", help="A video's id.")]


@app.command()
def create(
    ctx: typer.Context,
    *,
    model: Annotated[str, typer.Option(help="name (its latest version), name@alias or name/version.")],
    prompt: Annotated[str, typer.Option(help="The edited prompt.")],
    output: Annotated[Path, typer.Option("--output", "-o", dir_okay=False, help="Where to write it: .mp4, .webm or .gif.")],
    format: Annotated[str | None, typer.Option(help="mp4, webm or gif; left out, what the name ends with.")] = None,
    negative_prompt: Annotated[str | None, typer.Option(help="What it should not show.")] = None,
    truncate: Annotated[
        Literal["end", "error"] | None,
        typer.Option(help="Of a prompt longer than the base reads: cut the end, the default, or refuse."),
    ] = None,
    guidance_scale: Annotated[float | None, typer.Option(help="How closely it follows the prompt.")] = None,
    guidance_interval: Annotated[
        str | None,
        typer.Option(metavar="FROM-UNTIL", help="Shares of the steps, as 0-0.6: guidance only there, which is cheaper."),
    ] = None,
    num_inference_steps: Annotated[int | None, typer.Option("--steps", "--num-inference-steps", help="Sampling steps.")] = None,
    scheduler: Annotated[str | None, typer.Option(help="ddim, dpmpp_2m or unipc; the last two need fewer steps.")] = None,
    cache_interval: Annotated[
        int | None, typer.Option(help="Compute the whole network in one of so many steps, which is cheaper.")
    ] = None,
    strength: Annotated[float | None, typer.Option(help="0–1: how much of the clip the prompt may change.")] = None,
    feature_injection: Annotated[
        float | None, typer.Option(help="0–1: share of the steps that hold things where the clip has them.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of the noise, where any is used.")] = None,
    use_inverted_latents: Annotated[
        bool, typer.Option("--inverted-latents/--no-inverted-latents", help="Keep the clip's motion.")
    ] = True,
    noise_blend: Annotated[float | None, typer.Option(help="0–1: how much noise replaces the inverted latents.")] = None,
    num_frames: Annotated[int | None, typer.Option(help="Frames, without inverted latents.")] = None,
    size: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT in pixels, without inverted latents.")] = None,
    fps: Annotated[float | None, typer.Option(help="Frames a second; left out, the clip's.")] = None,
    seconds: Annotated[float | None, typer.Option(help="How long it plays, instead of --fps.")] = None,
    record: Annotated[bool, typer.Option("--record/--no-record", help="Keep it in the service as well.")] = True,
    json: JsonOption = False,
) -> None:
    """Make a video and write it to a file; prints where it is."""
    options: dict[str, Any] = {
        "format": format_of_name(output, format),
        "negative_prompt": negative_prompt,
        "truncate": truncate,
        "guidance_scale": guidance_scale,
        "guidance_interval": guidance_interval,
        "num_inference_steps": num_inference_steps,
        "scheduler": scheduler,
        "cache_interval": cache_interval,
        "strength": strength,
        "feature_injection": feature_injection,
        "seed": seed,
        "use_inverted_latents": None if use_inverted_latents else False,
        "noise_blend": noise_blend,
        "num_frames": num_frames,
        "size": size,
        "fps": fps,
        "seconds": seconds,
    }
    videos = client_of(ctx).videos
    if not record:
        if json:
            raise typer.BadParameter("--no-record leaves nothing to print as --json.")
        with interruptible("The service ends the video, of which nothing was to be kept."):
            content = videos.sync(model=model, prompt=prompt, record=False, **options)
        content.save(output)
        note_unread(content.unread)
        typer.echo(output)
        return
    with interruptible(f"Nothing was answered yet: {again(ctx, 'videos', 'list')} tells whether there is a video."):
        video = videos.create(model=model, prompt=prompt, **options)
    with interruptible(_goes_on(ctx, video.id, output)):
        video.save(output, progress=True)
    note_unread(video.snapshot.unread)
    if json:
        print_json(video.snapshot)
    else:
        typer.echo(output)


@app.command("list")
def list_(
    ctx: typer.Context,
    model: Annotated[str | None, typer.Option(help="Only videos of this model.")] = None,
    order: Annotated[Literal["asc", "desc"], typer.Option(help="desc: newest first.")] = "desc",
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 20,
    json: JsonOption = False,
) -> None:
    """List videos, newest first."""
    found = client_of(ctx).videos.list(model=model, order=order, page_size=min(limit, 100))
    snapshots = [video.snapshot for video in islice(found, limit)]
    if json:
        print_json(snapshots)
        return
    rows = [
        (video.id, video.status, f"{video.progress}%", video.model_version, when(video.created_at), video.prompt)
        for video in snapshots
    ]
    print_table(("ID", "STATUS", "DONE", "MODEL", "CREATED", "PROMPT"), rows)


@app.command()
def show(ctx: typer.Context, id: VideoId, json: JsonOption = False) -> None:
    """Show a video's state and what it is made from."""
    video = client_of(ctx).videos.get(id).snapshot
    if json:
        print_json(video)
    else:
        print_fields(_fields(video))


@app.command()
def watch(ctx: typer.Context, id: VideoId, json: JsonOption = False) -> None:
    """Follow a video until it ends; --json prints every snapshot on a line of its own."""
    videos = client_of(ctx).videos
    with interruptible(_goes_on(ctx, id)):
        if json:
            for snapshot in videos.events(id):
                print_json(snapshot)
        video = videos.get(id).wait(progress=not json)
    if not json:
        typer.echo(f"{video.id} {video.status}")


@app.command()
def download(
    ctx: typer.Context,
    id: VideoId,
    output: Annotated[Path | None, typer.Option("--output", "-o", dir_okay=False, help="Left out, ID and its ending.")] = None,
    variant: Annotated[
        Literal["video", "thumbnail", "spritesheet"],
        typer.Option(help="The video, its middle frame, or all frames in one picture."),
    ] = "video",
) -> None:
    """Write a completed video to a file; prints where it is."""
    videos = client_of(ctx).videos
    if output is None:
        name = f"{id}.{videos.get(id).snapshot.format}" if variant == "video" else f"{id}-{variant}.jpg"
        output = Path(name.replace("/", "_"))
    typer.echo(videos.download(id, output, variant, progress=True))


@app.command()
def delete(ctx: typer.Context, id: VideoId) -> None:
    """Remove a video; one that is on its way is ended first."""
    client_of(ctx).videos.delete(id)
    typer.echo(f"{id} deleted")


def _goes_on(ctx: typer.Context, id: str, output: Path | None = None) -> str:
    fetch = again(ctx, "videos", "download", id, *(["-o", str(output)] if output else []))
    return f"Video {id} goes on: fetch it later with {fetch}, end it with {again(ctx, 'videos', 'delete', id)}."


def _fields(video: Video) -> dict[str, object]:
    asked = video.request.model_dump(exclude_none=True, exclude_defaults=True, exclude={"model", "prompt"})
    return {
        "id": video.id,
        "status": video.status,
        "progress": read_video(video).line(),
        "error": f"{video.error.code}: {video.error.message}" if video.error else None,
        "prompt": video.prompt,
        "not read": unread_line(video.unread),
        "model": video.model_version,
        "request": "  ".join(f"{name}={value}" for name, value in asked.items()),
        "video": "  ".join(filter(None, [video.format, video.size, f"{video.seconds} s" if video.seconds else None])),
        "created": when(video.created_at),
        "completed": when(video.completed_at),
        "mlflow": video.mlflow_url,
    }
