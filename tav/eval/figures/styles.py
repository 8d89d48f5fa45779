"""Styles: how a drawn picture looks. They change colours and lines, never what is where."""

from __future__ import annotations

import numpy as np
from PIL import Image

from tav.eval.figures.places import Picture

STYLES: dict[str, str] = {"plain": "", "pencil": "pencil sketch", "pixel": "pixel art", "comic": "comic book"}
"""How a caption says it; nothing for the plain one."""

LINE: dict[str, float] = {"plain": 0.5, "pencil": 0.7, "pixel": 0.0, "comic": 1.5}
"""Half the width of the line around every part of a figure, in hundredths of the picture's side."""

INK = (26, 22, 28)
BLOCKS = 32
"""Squares to a side of pixel art."""


def styled(picture: Picture, style: str) -> Picture:
    """Draw the picture in a style, `[H, W, 3]` float32 in 0–255; sides are multiples of 32."""
    if style == "pencil":
        return _pencil(picture)
    if style == "pixel":
        return _pixel(picture)
    if style == "comic":
        return _comic(picture)
    return picture


def _pencil(picture: Picture) -> Picture:
    """Pale tints on paper, hatched where it is dark, with the edges drawn."""
    size = len(picture)
    light = picture.mean(-1)
    paper = np.array([246, 243, 234], np.float32)
    tint = paper * 0.55 + picture * 0.45
    y, x = np.mgrid[:size, :size] / size
    hatch = 0.5 + 0.5 * np.sin(2 * np.pi * 22 * (x + y))
    darkness = np.clip((150 - light) / 150, 0, 1)
    dx, dy = np.diff(light, axis=1, prepend=light[:, :1]), np.diff(light, axis=0, prepend=light[:1])
    edge = np.clip((np.hypot(dx, dy) - 16) / 50, 0, 1)
    ink = np.clip(0.75 * edge + 0.5 * darkness * (hatch > 0.55), 0, 1)[..., None]
    drawn: Picture = (tint * (1 - ink) + np.array([64, 62, 66], np.float32) * ink).astype(np.float32)
    return drawn


def _levels(picture: Picture, step: float) -> Picture:
    """Brightness in steps, hues as they are."""
    light = picture.max(-1, keepdims=True)
    few: Picture = np.clip(picture * (np.round(light / step) * step / np.maximum(light, 1)), 0, 255).astype(np.float32)
    return few


def _pixel(picture: Picture) -> Picture:
    """Draw squares of one colour each, of few levels."""
    size = len(picture)
    small = picture.reshape(BLOCKS, size // BLOCKS, BLOCKS, size // BLOCKS, 3)
    middle = np.median(small, axis=(1, 3))
    return _levels(middle, 24).repeat(size // BLOCKS, 0).repeat(size // BLOCKS, 1)


def _comic(picture: Picture) -> Picture:
    """Strong flat colours, and dots of print where it is of middling brightness."""
    size = len(picture)
    soft = np.asarray(Image.fromarray(picture.astype(np.uint8)), np.float32)
    light = soft.mean(-1, keepdims=True)
    flat = _levels(np.clip(light + 1.3 * (soft - light), 0, 255), 48)
    y, x = np.mgrid[:size, :size] / size
    dots = (
        (np.sin(2 * np.pi * 20 * (x + y)) * np.sin(2 * np.pi * 20 * (x - y)) > 0.35)
        & (light[..., 0] > 90)
        & (light[..., 0] < 215)
    )
    return np.clip(flat - 26 * dots[..., None], 0, 255).astype(np.float32)
