"""`tav import`: a public Tune-A-Video checkpoint as a delta and inverted latents, and as a version of the registry."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import TypeAdapter, ValidationError

from registry.tenants import DEFAULT_TENANT, TenantName
from services.cli.common import DataDir, ServerCommand, registry_settings
from tav.config import AttentionMode, GroupNormMode
from tav.errors import InvalidConfig
from tav_client.cli.common import size_of
from tav_client.schemas import ModelName

app = ServerCommand("Make a public Tune-A-Video checkpoint this project's own.")


@app.command()
def import_(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A pipeline's folder, or its UNet's.")],
    base: Annotated[
        str | None, typer.Option(help="What it was tuned on: a folder, a hub id, 'offline'; left out, taken out of the folder.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for delta.safetensors and latents.safetensors.")] = None,
    register: Annotated[str | None, typer.Option(metavar="NAME", help="Make it a version of this model.")] = None,
    tenant: Annotated[str, typer.Option(help="Whose model it shall be.")] = DEFAULT_TENANT,
    latents: Annotated[Path | None, typer.Option(help="ddim_latent-*.pt; left out, the folder's own.")] = None,
    clip: Annotated[Path | None, typer.Option(help="The source video, to invert it here instead.")] = None,
    caption: Annotated[str | None, typer.Option(help="What the clip shows.")] = None,
    frames: Annotated[int | None, typer.Option(min=1, help="Frames of the clip.")] = None,
    size: Annotated[str | None, typer.Option(metavar="WxH", help="Pixels, e.g. 512x512.")] = None,
    fps: Annotated[float | None, typer.Option(help="Frames a second of what is sampled.")] = None,
    inversion_steps: Annotated[int | None, typer.Option(min=1, help="That the latents were, or shall be, made in.")] = None,
    attention: Annotated[AttentionMode | None, typer.Option(help="ST-Attn mode; left out, what the folder says.")] = None,
    group_norm: Annotated[GroupNormMode | None, typer.Option(help="ResNet GroupNorm; left out, over the video.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Read a checkpoint, check that it was tuned on the base, and write or register what a version holds.

    What is left out about the clip is read from the folder: config.yaml, the latents' shape.
    """
    if out is None and register is None:
        raise InvalidConfig("where shall it go? Give a folder with --out, a model's name with --register, or both")
    if out is None and base is None:
        raise InvalidConfig("without --base, the folder's own base is kept in --out: give --out as well")
    name = None if register is None else _check_name(ModelName, register, "model")
    _check_name(TenantName, tenant, "tenant")
    from tav.base import Base
    from tav.interop import Facts, extract_base, import_checkpoint

    if base is None and out is not None:
        base = str(extract_base(folder, out / "base"))
        typer.echo(f"Took the base out of the folder: {base}", err=True)
    assert base is not None
    loaded = Base.load(base)
    imported = import_checkpoint(
        folder,
        loaded,
        facts=Facts(caption=caption, num_frames=frames, size=size_of(size), fps=fps, inversion_steps=inversion_steps),
        latents=latents,
        video=clip,
        attention=attention,
        group_norm=group_norm,
    )
    for part, deviation in imported.deviation.items():
        typer.echo(f"{part}: frozen tensors differ from the base's by at most {deviation:.2g}", err=True)
    if imported.latents is None and name is not None:
        raise InvalidConfig("a version needs inverted latents: give the file with --latents, or the video with --clip")
    from registry.registration import VersionInfo, version_config

    with tempfile.TemporaryDirectory(prefix="tav-import-") as scratch:
        files = Path(scratch)
        imported.delta.save(files / "delta.safetensors")
        if imported.latents is not None:
            imported.latents.save(files / "latents.safetensors")
            config = version_config(loaded, imported.delta, imported.latents)
            (files / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False))
        if name is not None:
            from registry.imported import ImportStore

            store = ImportStore(registry_settings(data_dir))
            version = store.register(name, files, VersionInfo.of(imported.delta), str(folder), imported.deviation, tenant)
            typer.echo(f"{version.name}/{version.version}")
        if out is not None:
            shutil.copytree(files, out, dirs_exist_ok=True)
            typer.echo(str(out))


def _check_name(kind: Any, name: str, what: str) -> str:
    try:
        valid: str = TypeAdapter(kind).validate_python(name)
        return valid
    except ValidationError as error:
        raise InvalidConfig(
            f"{name!r} cannot name a {what}: 1-64 of a-z 0-9 . _ -, first and last a letter or digit"
        ) from error
