"""Reads colour, shape, ground and position off a picture of the drawn world. Plain numpy; nothing is learnt.

Every pixel goes to the nearest colour of the world's palette; the largest connected patch of one object colour is
the object; its outline, with area and centroid taken out, is compared with each shape's; what is left is ground.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image

from tav.eval.offline.world import COLOURS, GROUNDS, OUTLINE, SHAPES, silhouette

SIDE = 64
"""Pictures of any size are read at this one."""

SHADES = (0.8, 0.9, 1.0, 1.1)
"""Brightness of an object's pixels relative to its colour, by the light from above."""

MIN_AREA = 40
"""Fewer object pixels than this, of 64×64, are no object."""

NORMAL_SIDE, NORMAL_AREA = 48, 560.0
"""Silhouettes are compared on so large a grid, at so large an area."""


@dataclass(frozen=True)
class Reading:
    """What is in a picture. `colour` and `shape` are None where there is no object."""

    colour: str | None
    shape: str | None
    ground: str
    centroid: tuple[float, float]
    """x, y in picture sides, 0–1; NaN where there is no object."""
    area: float
    """Share of the picture that the object's fill covers."""
    match: float
    """Overlap (IoU) with the best shape's silhouette, 0–1."""
    mask: np.ndarray
    """Where the object's fill is, bool `[64, 64]`."""


@cache
def _palette() -> tuple[np.ndarray, np.ndarray]:
    """Return colours `[P, 3]` and what each stands for `[P]`: an index into COLOURS, or -1 for ground and outline."""
    entries, meaning = [], []
    for i, rgb in enumerate(COLOURS.values()):
        for shade in SHADES:
            entries.append(np.clip(np.array(rgb, np.float32) * shade, 0, 255))
            meaning.append(i)
    for rgb in GROUNDS.values():
        for shift in (-24, -12, 0, 12):
            entries.append(np.clip(np.array(rgb, np.float32) + shift, 0, 255))
            meaning.append(-1)
    for rgb in (OUTLINE, (60, 58, 62), (100, 98, 100), (176, 160, 150)):
        entries.append(np.array(rgb, np.float32))
        meaning.append(-1)
    return np.stack(entries), np.array(meaning)


def _at_side(frame: np.ndarray) -> np.ndarray:
    """Resize the picture to float32 `[64, 64, 3]`."""
    if frame.shape[:2] != (SIDE, SIDE):
        frame = np.asarray(Image.fromarray(frame).resize((SIDE, SIDE), Image.Resampling.BOX))
    return frame.astype(np.float32)


def _largest(mask: np.ndarray) -> np.ndarray:
    """Find the largest connected patch of a bool mask."""
    label = np.where(mask, np.arange(1, mask.size + 1).reshape(mask.shape), 0)
    while True:
        wide = np.pad(label, 1)
        spread = np.maximum.reduce([label, wide[:-2, 1:-1], wide[2:, 1:-1], wide[1:-1, :-2], wide[1:-1, 2:]])
        spread = np.where(mask, spread, 0)
        if (spread == label).all():
            break
        label = spread
    names, counts = np.unique(label[mask], return_counts=True)
    return label == names[counts.argmax()] if len(names) else mask


def _normal(mask: np.ndarray) -> np.ndarray:
    """Move a mask to the centre and scale it to one area, bool `[48, 48]`."""
    y, x = np.nonzero(mask)
    scale = np.sqrt(mask.sum() / NORMAL_AREA)
    span = np.arange(NORMAL_SIDE) + 0.5 - NORMAL_SIDE / 2
    column, row = span * scale + x.mean() + 0.5, span * scale + y.mean() + 0.5
    box = (column[0], row[0], column[-1], row[-1])
    image = Image.fromarray(mask.astype(np.uint8) * 255)
    fitted = image.transform((NORMAL_SIDE, NORMAL_SIDE), Image.Transform.EXTENT, box, Image.Resampling.BILINEAR)
    return np.asarray(fitted) > 127


@cache
def _silhouettes() -> np.ndarray:
    """Draw every shape at two sizes, `[6, 2, 48, 48]` bool, read as an object's fill is: less its outline."""
    return np.stack([[_normal(silhouette(s, 0.5, 0.5, r, SIDE) > 0.75) for r in (0.17, 0.25)] for s in SHAPES])


def read(frame: np.ndarray) -> Reading:
    """Read one picture.

    Args:
        frame: uint8 `[H, W, 3]`, square.
    """
    picture = _at_side(frame)
    palette, meaning = _palette()
    distance = ((picture[:, :, None] - palette) ** 2).sum(-1)  # [64, 64, P]
    kind = meaning[distance.argmin(-1)]
    patches = [(_largest(kind == i), i) for i in range(len(COLOURS)) if (kind == i).sum() >= MIN_AREA]
    mask, colour = max(patches, key=lambda p: int(p[0].sum()), default=(np.zeros((SIDE, SIDE), bool), -1))
    around = kind == -1
    if mask.sum() < MIN_AREA:
        return Reading(None, None, _ground(picture[around]), (np.nan, np.nan), 0.0, 0.0, np.zeros_like(mask))
    y, x = np.nonzero(mask)
    normal = _normal(mask)
    known = _silhouettes()
    overlap = (known & normal).sum((-1, -2)) / (known | normal).sum((-1, -2))  # [6, 2]
    best = overlap.max(1)
    return Reading(
        colour=list(COLOURS)[colour],
        shape=SHAPES[int(best.argmax())],
        ground=_ground(picture[around]),
        centroid=(float(x.mean() + 0.5) / SIDE, float(y.mean() + 0.5) / SIDE),
        area=float(mask.mean()),
        match=float(best.max()),
        mask=mask,
    )


def _ground(pixels: np.ndarray) -> str:
    """Name the ground whose mean colour is nearest to the median of the pixels `[N, 3]`."""
    if not len(pixels):
        return next(iter(GROUNDS))
    means = np.array(list(GROUNDS.values()), np.float32)
    return list(GROUNDS)[int(((means - np.median(pixels, axis=0)) ** 2).sum(1).argmin())]


def read_clip(frames: np.ndarray) -> list[Reading]:
    """Read every frame of uint8 `[F, H, W, 3]`."""
    return [read(frame) for frame in frames]
