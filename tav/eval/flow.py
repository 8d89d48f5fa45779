"""Scores by optical flow, which need no model's weights: warping error, and agreement of motion with the source.

Flow is OpenCV's DIS (Kroeger et al. 2016, medium preset) between frames whose shorter side is brought to `SIDE` pixels, so
that scores of different frame sizes are on one scale. Grey is the axis along which a video's colours differ most, not
luminance, in which a pink star on blue water all but vanishes. `flow[y, x]` is how far a pixel moves right and down.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from tav.errors import InvalidConfig
from tav.video import Frames

SIDE = 256
"""Shorter side at which flow is computed, pixels."""
LONGEST = 4 * SIDE
"""Longer side at most, whatever the proportions: a strip of 4096x8 pixels would otherwise be scored at 131072x256."""
_STILL = 0.1**2
"""Motion far below a tenth of a pixel is no motion, squared pixels."""
_SEEN_LEAST = 0.01
"""With fewer unoccluded pixels than this share, flow has failed, and every pixel counts."""

Flow = NDArray[np.float32]
Grey = NDArray[np.uint8]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class FlowScores:
    """What flow tells of a video."""

    warping_error: float
    """How much the picture changes beyond its own motion: 1000 × mean squared difference (RGB, 0–1) between each frame and
    the next one warped back by the flow between them, over the pixels that both show, then over the pairs of frames
    (E_warp of Lai et al. 2018, with the video's own flow). 0 is best."""
    flow_agreement: float | None
    """How well the motion follows the source's: 1 − Σ|f − s|² / (Σ|f|² + Σ|s|²) over the flows f of the video and s of the
    source, without the pixels that leave or are hidden in the source; a tenth of a pixel is added to the length of either
    flow, so that two still videos agree. 1 for the same motion, about 0 for a still or unrelated video, −1 for the opposite.
    None without a source."""


def flow_scores(frames: Frames, source: Frames | None = None) -> FlowScores:
    """Score a video by its flow, and against its source's.

    Args:
        frames: uint8 `[F, H, W, 3]`, F ≥ 2.
        source: the frames that it was made from, of the same shape.

    Raises:
        InvalidConfig: a single frame, or a source of another number or size of frames.
    """
    if len(frames) < 2:
        raise InvalidConfig("a video of one frame has no motion to score: give two frames or more")
    if source is not None and frames.shape != source.shape:
        raise InvalidConfig(
            f"the source has {_words(source)}, the video {_words(frames)}: give the frames that the video was made from"
        )
    frames = _at_side(frames)
    grey = grey_of(frames)
    source_flows = _flows(grey_of(_at_side(source))) if source is not None else None
    errors, difference, energy = [], 0.0, 0.0
    for i, (forth, back) in enumerate(_flows(grey)):
        errors.append(_pair_error(frames[i], frames[i + 1], forth, seen_in_both(forth, back)))
        if source_flows is not None:
            theirs, returning = next(source_flows)
            seen = seen_in_both(theirs, returning)
            difference += float(((forth - theirs) ** 2).sum(-1)[seen].sum())
            energy += float(((forth**2).sum(-1) + (theirs**2).sum(-1) + 2 * _STILL)[seen].sum())
    agreement = None if source_flows is None else 1 - difference / energy if energy else 0.0
    return FlowScores(float(np.mean(errors)), agreement)


def grey_of(frames: Frames) -> Grey:
    """Turn frames uint8 `[F, H, W, 3]` grey along the first principal axis of their colours, in 0–255, `[F, H, W]`."""
    pixels = frames.reshape(-1, 3)
    pixels = pixels[:: max(1, len(pixels) // 20_000)].astype(np.float32)
    middle = pixels.mean(0)
    spread = (pixels - middle).T @ (pixels - middle)
    axis = np.linalg.eigh(spread)[1][:, -1].astype(np.float32)
    axis *= np.sign(axis.sum()) or 1
    low, high = np.percentile((pixels - middle) @ axis, (0.5, 99.5))
    scale = 255 / max(high - low, 1.0)
    grey = (((frame.astype(np.float32) - middle) @ axis - low) * scale for frame in frames)  # in fp32 one at a time
    return np.stack([np.clip(frame, 0, 255).round().astype(np.uint8) for frame in grey])


def optical_flow(before: Grey, after: Grey) -> Flow:
    """Find where each pixel of one frame goes in the next: grey `[H, W]` -> `[H, W, 2]`, pixels to the right and down."""
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    return np.asarray(dis.calc(before, after, None), np.float32)  # type: ignore[call-overload] # None: no flow to begin with


def warp(picture: NDArray[np.float32], flow: Flow) -> NDArray[np.float32]:
    """Sample `picture[y + v, x + u]` for `(u, v) = flow[y, x]`, bilinear; beyond the edge, the edge. `[H, W, C]` -> `[H, W,
    C]`."""
    y, x = np.mgrid[: flow.shape[0], : flow.shape[1]].astype(np.float32)
    moved = cv2.remap(picture, x + flow[..., 0], y + flow[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(moved, np.float32)


def seen_in_both(forth: Flow, back: Flow) -> Mask:
    """Mark pixels of a frame that the next one shows too: there and back ends where it began (Sundaram et al. 2010).

    Args:
        forth: from the frame to the next, `[H, W, 2]`.
        back: from the next to the frame, `[H, W, 2]`.

    Returns:
        bool `[H, W]`.
    """
    returned = warp(back, forth)
    height, width = forth.shape[:2]
    y, x = np.mgrid[:height, :width]
    inside = (x + forth[..., 0] >= 0) & (x + forth[..., 0] <= width - 1)
    inside &= (y + forth[..., 1] >= 0) & (y + forth[..., 1] <= height - 1)
    missed = ((forth + returned) ** 2).sum(-1)
    allowed = 0.01 * ((forth**2).sum(-1) + (returned**2).sum(-1)) + 0.5
    return np.asarray(inside & (missed < allowed))


def _flows(grey: Grey) -> Iterator[tuple[Flow, Flow]]:
    """Forth and back, of each pair of adjacent frames."""
    for before, after in pairwise(grey):
        yield optical_flow(before, after), optical_flow(after, before)


def _pair_error(before: Frames, after: Frames, forth: Flow, seen: Mask) -> float:
    if seen.mean() < _SEEN_LEAST:
        seen = np.ones_like(seen)
    change = before.astype(np.float32) - warp(after.astype(np.float32), forth)
    return float(1000 * ((change / 255) ** 2)[seen].mean())


def _at_side(frames: Frames) -> Frames:
    """Resize frames to `SIDE` pixels on their shorter side, and to `LONGEST` at most on their longer one."""
    height, width = frames.shape[1:3]
    scale = SIDE / min(height, width)
    size = (min(LONGEST, round(width * scale)), min(LONGEST, round(height * scale)))
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.stack([cv2.resize(np.ascontiguousarray(frame), size, interpolation=way) for frame in frames])


def _words(frames: Frames) -> str:
    return f"{len(frames)} frames of {frames.shape[2]}x{frames.shape[1]}"
