"""`tav videos`: sample, list, follow, download and delete videos."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from tav_client._content import format_of_name
from tav_client._progress import read_video
from tav_client.cli._options import options_of
from tav_client.cli.common import (
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
from tav_client.schemas import Video, VideoCreate

app = group("Make videos of edited prompts, and fetch them.")

VideoId = Annotated[str, typer.Argument(metavar="ID", help="A video's id.")]


@app.command()
@options_of(
    VideoCreate,
    guidance_interval=typer.Option(metavar="FROM-UNTIL"),
    num_inference_steps=typer.Option("--steps", "--num-inference-steps"),
    use_inverted_latents=typer.Option("--inverted-latents/--no-inverted-latents"),
    size=typer.Option(metavar="WIDTHxHEIGHT"),
)
def create(
    ctx: typer.Context,
    *,
    output: Annotated[Path, typer.Option("--output", "-o", dir_okay=False, help="Where to write it: .mp4, .webm or .gif.")],
    format: Annotated[str | None, typer.Option(help="mp4, webm or gif; left out, what the name ends with.")] = None,
    record: Annotated[bool, typer.Option("--record/--no-record", help="Keep it in the service as well.")] = True,
    json: JsonOption = False,
    **fields: Any,
) -> None:
    """Make a video and write it to a file; prints where it is."""
    fields["format"] = format_of_name(output, format)
    videos = client_of(ctx).videos
    if not record:
        if json:
            raise typer.BadParameter("--no-record leaves nothing to print as --json.")
        with interruptible("The service ends the video, of which nothing was to be kept."):
            content = videos.sync(record=False, **fields)
        content.save(output)
        note_unread(content.unread)
        typer.echo(output)
        return
    with interruptible(f"Nothing was answered yet: {again(ctx, 'videos', 'list')} tells whether there is a video."):
        video = videos.create(**fields)
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
    videos = client_of(ctx).videos.list(model=model, order=order, page_size=min(limit, 100))
    snapshots = [video.snapshot for video in islice(videos, limit)]
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
    request = video.request.model_dump(exclude_none=True, exclude_defaults=True, exclude={"model", "prompt"})
    return {
        "id": video.id,
        "status": video.status,
        "progress": read_video(video).line(),
        "error": f"{video.error.code}: {video.error.message}" if video.error else None,
        "prompt": video.prompt,
        "not read": unread_line(video.unread),
        "model": video.model_version,
        "request": "  ".join(f"{name}={value}" for name, value in request.items()),
        "video": "  ".join(filter(None, [video.format, video.size, f"{video.seconds} s" if video.seconds else None])),
        "created": when(video.created_at),
        "completed": when(video.completed_at),
        "mlflow": video.mlflow_url,
    }
