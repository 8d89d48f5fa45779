"""Places: sky above a horizon, a textured ground below it, and marks far away. A camera may look further left or right."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.float32]
"""`[H, W, 3]` in 0–255."""

PLACES: dict[str, tuple[str, float]] = {
    "beach": ("on the beach", 0.50),
    "snow": ("in the snow", 0.46),
    "grass": ("on the grass", 0.48),
    "street": ("on the street", 0.54),
    "desert": ("in the desert", 0.44),
    "moon": ("on the moon", 0.50),
}
"""How a caption says it, and where the horizon is, in picture heights from the top."""

_LATTICE = 32


def _noise(rng: np.random.Generator, u: np.ndarray, v: np.ndarray, across: float, down: float) -> Picture:
    """Smooth noise at points of the place, about unit deviation, with so many cells to a picture's side."""
    grid = rng.standard_normal((_LATTICE, _LATTICE)).astype(np.float32)
    x, y = u * across, v * down
    i, j = np.floor(x).astype(int), np.floor(y).astype(int)
    fx, fy = x - i, y - j
    fx, fy = fx * fx * (3 - 2 * fx), fy * fy * (3 - 2 * fy)

    def at(dj: int, di: int) -> np.ndarray:
        return grid[(j + dj) % _LATTICE, (i + di) % _LATTICE]

    top = at(0, 0) * (1 - fx) + at(0, 1) * fx
    low = at(1, 0) * (1 - fx) + at(1, 1) * fx
    return (1.5 * (top * (1 - fy) + low * fy)).astype(np.float32)


def _mix(picture: Picture, colour: tuple[float, float, float], share: np.ndarray) -> Picture:
    s = np.clip(share, 0, 1).astype(np.float32)[..., None]
    return picture * (1 - s) + np.array(colour, np.float32) * s


def _edge(distance: np.ndarray, size: int) -> np.ndarray:
    """Return 1 where the distance (picture sides) is positive, 0 where negative, over one pixel."""
    return np.clip(distance * size + 0.5, 0, 1)


def _ridge(rng: np.random.Generator, u: np.ndarray, across: float, low: float, high: float) -> np.ndarray:
    """Draw a line of hills: its height at every column, between two heights."""
    wave = _noise(rng, u, np.zeros_like(u), across, 1) + 0.4 * _noise(rng, u, np.zeros_like(u), across * 3, 1)
    return low + (high - low) * (0.5 + 0.5 * np.tanh(wave))


def draw_place(place: str, seed: int, size: int, camera: float = 0.0) -> Picture:
    """Draw a place without anybody.

    Args:
        place: one of `PLACES`.
        seed: picks the variant.
        size: of the square picture, in pixels.
        camera: how far right the camera looks, in picture sides.

    Returns:
        `[size, size, 3]`, float32 in 0–255.
    """
    rng = np.random.default_rng([seed, list(PLACES).index(place)])
    at = (np.arange(size, dtype=np.float32) + 0.5) / size
    u = np.broadcast_to(at[None, :] + np.float32(camera), (size, size))
    v = np.broadcast_to(at[:, None], (size, size))
    horizon = PLACES[place][1]
    below = np.clip((v - horizon) / (1 - horizon), 0, 1)  # 0 at the horizon, 1 at the lower edge
    above = np.clip((horizon - v) / horizon, 0, 1)
    white = np.ones((size, size, 3), np.float32)
    sky, ground = _PAINTERS[place](rng, u, v, below, above, size, horizon, white)
    inside = _edge(v - horizon, size)[..., None]
    picture: Picture = np.clip(sky * (1 - inside) + ground * inside, 0, 255).astype(np.float32)
    return picture


def _blue_sky(above: np.ndarray, white: Picture) -> Picture:
    return _mix(white * np.array([206, 230, 246], np.float32), (122, 186, 238), above)


def _beach(rng, u, v, below, above, size, horizon, white):  # type: ignore[no-untyped-def]
    sky = _mix(_blue_sky(above, white), (255, 255, 255), 0.8 * np.clip(_noise(rng, u, v, 3, 9) - 0.7, 0, 1))
    sand = white * np.array([232, 206, 150], np.float32) + (7 * _noise(rng, u, v, 14, 26) - 14 * below)[..., None]
    shore = 0.26 + 0.035 * np.sin(2 * np.pi * 1.5 * u + rng.random() * 6)
    sea = white * np.array([40, 140, 190], np.float32)
    sea = sea + (16 * np.sin(2 * np.pi * (26 * below + 0.6 * _noise(rng, u, v, 6, 12))))[..., None]
    ground = _mix(sand, (0, 0, 0), np.zeros_like(below))
    mask = _edge(shore - below, size)
    ground = ground * (1 - mask[..., None]) + sea * mask[..., None]
    return sky, _mix(ground, (250, 250, 248), np.clip(1 - np.abs(below - shore) / 0.025, 0, 1))


def _snow(rng, u, v, below, above, size, horizon, white):  # type: ignore[no-untyped-def]
    sky = _mix(white * np.array([224, 232, 242], np.float32), (176, 200, 228), above)
    peaks = _ridge(rng, u, 3, 0.10, 0.34)
    sky = _mix(sky, (150, 166, 190), _edge(v - (horizon - peaks), size))
    sky = _mix(sky, (244, 247, 252), _edge(v - (horizon - peaks), size) * _edge((horizon - peaks + 0.07) - v, size))
    ground = white * np.array([238, 243, 250], np.float32)
    ground = ground + (6 * _noise(rng, u, v, 4, 10))[..., None] * np.array([1.1, 0.9, 0.5], np.float32)
    return sky, ground


def _grass(rng, u, v, below, above, size, horizon, white):  # type: ignore[no-untyped-def]
    sky = _blue_sky(above, white)
    hills = _ridge(rng, u, 2, 0.04, 0.16)
    sky = _mix(sky, (104, 156, 92), _edge(v - (horizon - hills), size))
    ground = white * np.array([96, 158, 66], np.float32)
    shade = 10 * _noise(rng, u, v, 26, 14) + 7 * _noise(rng, u, v, 5, 5) - 12 * below
    return sky, ground + shade[..., None] * np.array([0.9, 1.0, 0.5], np.float32)


def _street(rng, u, v, below, above, size, horizon, white):  # type: ignore[no-untyped-def]
    sky = _mix(white * np.array([214, 216, 220], np.float32), (166, 182, 200), above)
    block = np.floor(u * 5).astype(int)
    heights = (0.18 + 0.3 * rng.random(_LATTICE))[block % _LATTICE]
    tint = (rng.random((_LATTICE, 3)) * [60, 44, 40] + [120, 96, 90])[block % _LATTICE].astype(np.float32)
    wall = _edge(v - (horizon - heights), size)[..., None]
    sky = sky * (1 - wall) + tint * wall
    column, row = (u * 5 % 1 * 4) % 1, (v * 16) % 1
    window = (np.abs(column - 0.5) < 0.26) & (np.abs(row - 0.5) < 0.28) & (v > horizon - heights + 0.03) & (v < horizon - 0.05)
    sky = _mix(sky, (236, 226, 160), 0.75 * window)
    ground = white * np.array([104, 106, 112], np.float32) + (4 * _noise(rng, u, v, 30, 30))[..., None]
    ground = _mix(ground, (186, 184, 178), _edge(0.13 - below, size))
    dash = (np.abs(below - 0.52) < 0.035) & ((u * 2.5) % 1 < 0.55)
    return sky, _mix(ground, (240, 236, 214), dash.astype(np.float32))


def _desert(rng, u, v, below, above, size, horizon, white):  # type: ignore[no-untyped-def]
    sky = _mix(white * np.array([252, 232, 190], np.float32), (244, 176, 110), above)
    dunes = _ridge(rng, u, 1.6, 0.02, 0.15)
    sky = _mix(sky, (206, 122, 62), _edge(v - (horizon - dunes), size))
    ground = white * np.array([222, 148, 78], np.float32)
    ripple = np.sin(2 * np.pi * (11 * below + 0.9 * _noise(rng, u, v, 3, 3)))
    return sky, ground + (8 * ripple - 10 * below)[..., None]


def _moon(rng, u, v, below, above, size, horizon, white):  # type: ignore[no-untyped-def]
    sky = white * np.array([12, 12, 26], np.float32)
    cell = 14.0
    i, j = np.floor(u * cell).astype(int) % _LATTICE, np.floor(v * cell).astype(int) % _LATTICE
    place = rng.random((_LATTICE, _LATTICE, 3))[j, i]
    far = np.hypot(u * cell % 1 - 0.2 - 0.6 * place[..., 0], v * cell % 1 - 0.2 - 0.6 * place[..., 1])
    sky = _mix(sky, (255, 255, 240), np.where(place[..., 2] > 0.45, np.clip(1.3 - far / 0.1, 0, 1), 0))
    ground = white * np.array([146, 146, 152], np.float32) + (7 * _noise(rng, u, v, 10, 16))[..., None]
    hole = _noise(rng, u, below, 5, 4)
    ground = _mix(ground, (104, 104, 112), np.clip((hole - 0.9) * 4, 0, 0.8))
    return sky, ground


_PAINTERS = {"beach": _beach, "snow": _snow, "grass": _grass, "street": _street, "desert": _desert, "moon": _moon}
