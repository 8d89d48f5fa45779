"""`tav videos`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tav_client.cli._common import JsonOption, client_of, group, print_json

app = group("Make videos of edited prompts.")


@app.callback()
def videos() -> None:
    """Make videos of edited prompts."""


@app.command()
def create(
    ctx: typer.Context,
    *,
    model: Annotated[str, typer.Option(help="name (its latest version), name@alias or name/version.")],
    prompt: Annotated[str, typer.Option(help="The edited prompt.")],
    output: Annotated[Path, typer.Option("--output", "-o", dir_okay=False, help="Where to write it: .mp4 or .gif.")],
    negative_prompt: Annotated[str | None, typer.Option(help="What it should not show.")] = None,
    guidance_scale: Annotated[float | None, typer.Option(help="How closely it follows the prompt.")] = None,
    guidance_interval: Annotated[
        str | None,
        typer.Option(metavar="FROM-UNTIL", help="Shares of the steps, as 0-0.6: guidance only there, which is cheaper."),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Sampling steps.")] = None,
    scheduler: Annotated[str | None, typer.Option(help="ddim, dpmpp_2m or unipc; the last two need fewer steps.")] = None,
    cache_interval: Annotated[
        int | None, typer.Option(help="Compute the whole network in one of so many steps, which is cheaper.")
    ] = None,
    strength: Annotated[float | None, typer.Option(help="0–1: how much of the clip the prompt may change.")] = None,
    feature_injection: Annotated[
        float | None, typer.Option(help="0–1: share of the steps that hold things where the clip has them.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of the noise, where any is used.")] = None,
    inverted_latents: Annotated[
        bool, typer.Option("--inverted-latents/--no-inverted-latents", help="Keep the clip's motion.")
    ] = True,
    noise_blend: Annotated[float | None, typer.Option(help="0–1: how much noise replaces the inverted latents.")] = None,
    num_frames: Annotated[int | None, typer.Option(help="Frames, without inverted latents.")] = None,
    size: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT in pixels, without inverted latents.")] = None,
    fps: Annotated[float | None, typer.Option(help="Frames a second; left out, the clip's.")] = None,
    json: JsonOption = False,
) -> None:
    """Make a video and write it to a file; prints where it is."""
    video = client_of(ctx).videos.create_and_save(
        output,
        model=model,
        prompt=prompt,
        progress=True,
        negative_prompt=negative_prompt,
        guidance_scale=guidance_scale,
        guidance_interval=guidance_interval,
        num_inference_steps=steps,
        scheduler=scheduler,
        cache_interval=cache_interval,
        strength=strength,
        feature_injection=feature_injection,
        seed=seed,
        use_inverted_latents=None if inverted_latents else False,
        noise_blend=noise_blend,
        num_frames=num_frames,
        size=size,
        fps=fps,
    )
    if json:
        print_json(video.snapshot)
    else:
        typer.echo(output)
