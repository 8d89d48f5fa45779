"""`tav caption`: a clip's caption, to tune it with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from services.cli.common import ServerCommand

app = ServerCommand("Caption a clip.")


@app.command()
def caption(
    clip: Annotated[Path, typer.Argument(metavar="CLIP", help="A video file.")],
    captioner: Annotated[str | None, typer.Option(help="A hub id or folder; left out, TAV_CAPTIONER, then BLIP-2.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; left out, what is there.")] = None,
) -> None:
    """Print what the clip's middle frame shows."""
    import torch

    from services.settings import Settings
    from tav.caption import DEFAULT, Captioner

    name = captioner or Settings().captioner or DEFAULT
    target = device or ("cuda" if torch.cuda.is_available() else "cpu")
    typer.echo(Captioner(name, target).caption_clip(clip))
