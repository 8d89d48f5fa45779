"""What the oracle's readings of a video say about motion and steadiness."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from tav.eval.offline.oracle import SIDE, Reading
from tav.video import Frames


def path_correlation(readings: Sequence[Reading], source: Sequence[Reading]) -> float:
    """Correlate centroids (Pearson) over both coordinates of all frames, −1…1. No object counts as standing still."""
    ours, theirs = (np.array([r.centroid for r in rs]) for rs in (readings, source))
    ours, theirs = (p - np.nanmean(p, axis=0) if np.isfinite(p).any() else p for p in (ours, theirs))
    ours = np.nan_to_num(ours)
    return float((ours * theirs).sum() / max(np.linalg.norm(ours) * np.linalg.norm(theirs), 1e-9))


def ground_flicker(frames: Frames, readings: Sequence[Reading]) -> float:
    """Mean change of ground pixels from frame to frame, 0–255."""
    pixels = _at_mask_size(frames)
    changes = []
    for i in range(1, len(pixels)):
        ground = ~(_grown(readings[i].mask) | _grown(readings[i - 1].mask))
        if ground.any():
            changes.append(np.abs(pixels[i][ground] - pixels[i - 1][ground]).mean())
    return float(np.mean(changes)) if changes else 0.0


def colour_drift(frames: Frames, readings: Sequence[Reading]) -> float:
    """Return the standard deviation over frames of the object's mean colour, 0–255; 255 where no frame has an object."""
    means = [pixels[r.mask].mean(0) for pixels, r in zip(_at_mask_size(frames), readings, strict=True) if r.mask.any()]
    return float(np.std(means, axis=0).mean()) if means else 255.0


def _at_mask_size(frames: Frames) -> np.ndarray:
    box = Image.Resampling.BOX
    return np.stack([np.asarray(Image.fromarray(f).resize((SIDE, SIDE), box), np.float32) for f in frames])


def _grown(mask: np.ndarray, by: int = 4) -> np.ndarray:
    wide = np.pad(mask, by)
    size = mask.shape[0]
    return np.logical_or.reduce([wide[y : y + size, x : x + size] for y in range(2 * by + 1) for x in range(2 * by + 1)])
