"""An architecture's costs as functions of frames and size. Those of known architectures ship with the package.

With F frames of P = h·w latent pixels, traffic is linear in F·P, and peak memory piecewise so. Work is
`a·F·P + b·F·P² + c·F²·P`: convolutions and projections, attention over space, attention over time.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from pydantic import BaseModel

from tav.bases import MOVED, local_folder, parse
from tav.config import AttentionMode


@dataclass(frozen=True)
class Cost:
    """Of one pass, in fp32."""

    peak_bytes: int
    """Of activations and gradients; parameters and inputs are not counted."""
    flops: int
    """Multiplications and additions of convolutions and products."""
    attention: int
    """The same, of attention over space and over time."""
    traffic_bytes: int
    """Sum of all results: what bounds everything that is not such an operation."""
    operations: int

    def of_rows(self, rows: int) -> Cost:
        """Return the cost of the same pass with so many rows in the batch."""
        return Cost(
            rows * self.peak_bytes, rows * self.flops, rows * self.attention, rows * self.traffic_bytes, self.operations
        )


class PassProfile(BaseModel):
    """One pass; bytes as in fp32."""

    peak: tuple[tuple[float, float], ...]
    """Bytes: constant and per F·P, of each part of the pass that may be where the peak is. Where clips are small it comes when
    the last gradients have been added, otherwise where the frames are largest."""
    traffic: tuple[float, float]
    """Bytes: constant, per F·P."""
    flops: tuple[float, float, float, float]
    """Constant and per F·P, and of attention per F·P² and F²·P."""
    operations: int

    def cost(self, frames: int, pixels: int, attention: AttentionMode = "sparse_causal") -> Cost:
        """Return what F frames of P latent pixels cost. The profile is of sparse-causal attention, where two frames answer
        each."""
        answering = {"sparse_causal": 2.0, "frame": 1.0, "causal": (frames + 1) / 2, "full": float(frames)}[attention]
        volume = frames * pixels
        attended = self.flops[2] * volume * pixels * answering / 2 + self.flops[3] * volume * frames
        return Cost(
            peak_bytes=max(int(constant + slope * volume) for constant, slope in self.peak),
            flops=max(0, int(self.flops[0] + self.flops[1] * volume)),
            attention=max(0, int(attended)),
            traffic_bytes=max(0, int(self.traffic[0] + self.traffic[1] * volume)),
            operations=self.operations,
        )


class Profile(BaseModel):
    """One architecture."""

    name: str
    hub_ids: tuple[str, ...] = ()
    """Bases on the hub that have it."""
    unet: dict[str, Any]
    vae: dict[str, Any]
    """What the two networks are built from, diffusers' defaults filled in."""
    frozen: int
    """Parameters of the network that are not tuned."""
    tuned: int
    originals: int
    """Of the tuned ones, those that the base has too and keeps."""
    tensors: int
    """All of the network's parameters lie in so many tensors."""
    vae_size: int
    text_size: int
    scale: int
    """Pixels per latent along each side."""
    passes: dict[str, PassProfile]

    def describes(self, unet: dict[str, Any], vae: dict[str, Any]) -> bool:
        """Say whether these diffusers configs are of this architecture. A missing key has diffusers' default."""
        defaults = packaged()[0]  # Stable Diffusion 1.x is what diffusers' defaults describe
        return all(
            config.get(key, default[key]) == value
            for config, architecture, default in ((unet, self.unet, defaults.unet), (vae, self.vae, defaults.vae))
            for key, value in architecture.items()
        )


def of_base(name: str) -> Profile | None:
    """Find the packaged profile of a base, by its folder's configs or its hub id; None where neither is known."""
    folder = local_folder(name)
    if folder is None:
        return of_hub(name)
    unet, vae = (json.loads((folder / part / "config.json").read_text()) for part in ("unet", "vae"))
    return of_configs(unet, vae)


def of_hub(name: str) -> Profile | None:
    """Find the packaged profile of a hub id. It opens no file, so the id may come from an untrusted caller."""
    repo, _ = parse(name)
    return next((profile for profile in packaged() if MOVED.get(repo, repo) in profile.hub_ids), None)


def of_configs(unet: dict[str, Any], vae: dict[str, Any]) -> Profile | None:
    """Find the packaged profile of an architecture."""
    return next((profile for profile in packaged() if profile.describes(unet, vae)), None)


@cache
def packaged() -> tuple[Profile, ...]:
    """Read the packaged profiles: Stable Diffusion 1.x, 2.x, and the shipped base."""
    profiles = json.loads(files("tav.estimate").joinpath("profiles.json").read_text())
    return tuple(Profile.model_validate(profile) for profile in profiles)
