"""What the VAE asks of frames: which sizes it encodes, and how many frames go through it at once. No torch.

Stable Diffusion's VAE halves each side three times: one latent stands for 8 × 8 pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tav.errors import InvalidConfig

SCALE = 8
"""Pixels per latent along each side, in Stable Diffusion 1.x and 2.x."""
FRAMES_AT_ONCE = 8
"""Frames through the VAE in one call: its activations are the largest of all."""


def scale_of(config: Mapping[str, Any]) -> int:
    """Return the pixels per latent along each side, from a VAE's config."""
    return int(2 ** (len(config["block_out_channels"]) - 1))


def check_size(width: int, height: int, scale: int = SCALE, base: str | None = None) -> None:
    """Refuse a size that latents cannot hold.

    Args:
        width, height: in pixels.
        scale: pixels per latent along each side.
        base: named in the error, where the scale is one base's own.

    Raises:
        InvalidConfig: says which sizes will do.
    """
    if any(side < scale or side % scale for side in (width, height)):
        on_base = f" for base {base!r}" if base else ""
        raise InvalidConfig(f"size {width}x{height} will not do{on_base}: width and height must be multiples of {scale}")
