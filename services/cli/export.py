"""`tav export`: a tuned clip for the public Tune-A-Video implementation, or as a diffusers pipeline."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Literal

import typer

from services.cli.common import DataDir, ServerCommand, registry_settings
from tav.errors import InvalidConfig

app = ServerCommand("Write a tuned clip in another implementation's format.")


@app.command()
def export(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL|FOLDER", help="name, name@alias, name/version, or a folder with delta.safetensors."),
    ],
    out: Annotated[Path, typer.Option(help="A new folder.")],
    format: Annotated[
        Literal["tune-a-video", "diffusers"],
        typer.Option(help="tune-a-video: the public implementation's pipeline. diffusers: a pipeline with its own code."),
    ] = "diffusers",
    base: Annotated[str | None, typer.Option(help="Left out, the one that the delta names.")] = None,
    half: Annotated[bool, typer.Option("--half", help="tune-a-video: the UNet in fp16 instead of fp32.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Write delta, inverted latents and base as one folder."""
    import torch

    from tav.base import Base
    from tav.delta import Delta
    from tav.interop import export_diffusers, export_tune_a_video
    from tav.latents import Latents

    with tempfile.TemporaryDirectory(prefix="tav-export-") as scratch:
        folder = Path(model)
        if not folder.is_dir():
            from registry.versions import VersionStore

            store = VersionStore(registry_settings(data_dir))
            folder = store.fetch(store.resolve(model), Path(scratch))
        if not (folder / "delta.safetensors").is_file():
            raise InvalidConfig(f"{folder} holds no delta.safetensors: give a folder that `tav import` wrote, or a model")
        delta = Delta.load(folder / "delta.safetensors")
        stored = folder / "latents.safetensors"
        latents = Latents.load(stored) if stored.is_file() else None
        pipeline_base = Base.load(base or delta.meta.origin.base)
        if format == "diffusers":
            export_diffusers(pipeline_base, delta, latents, out)
        else:
            for note in export_tune_a_video(pipeline_base, delta, latents, out, torch.float16 if half else torch.float32):
                typer.echo(f"Note: {note}", err=True)
    typer.echo(str(out))
