"""The suites `offline` and `offline-development`: drawn clips × (their own caption + four edits) × seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tav.eval.offline.clips import DEVELOPMENT, SCORED, VIDEOS, DrawnClip
from tav.eval.offline.oracle import Reading, read_clip
from tav.eval.offline.scores import colour_drift, ground_flicker, path_correlation
from tav.eval.offline.world import caption
from tav.eval.suite import RECONSTRUCTION, Case, Measure, Suite, SuiteClip
from tav.video import Frames

MEASURES = (
    Measure(
        "edited", "higher", "Share of frames with all edited attributes right (for the clip's own caption: all three).", ".1%"
    ),
    Measure("kept", "higher", "Share of frames with all other attributes right.", ".1%"),
    Measure("path", "higher", "Correlation of the object's centroids with the source's, −1…1.", ".3f"),
    Measure(
        "flicker", "lower", "Mean change of ground pixels from frame to frame, 0–255; the source's ground stands still.", ".2f"
    ),
    Measure("drift", "lower", "Standard deviation over frames of the object's mean colour, 0–255.", ".2f"),
)

World = tuple[str, str, str]
"""Colour, shape, ground."""


def worlds(clip: DrawnClip) -> dict[str, World]:
    """Say what each edit should show, by the edit's name; the clip's own description first."""
    colour, shape, ground = clip.colour, clip.shape, clip.ground
    return {
        RECONSTRUCTION: (colour, shape, ground),
        "colour": (clip.to_colour, shape, ground),
        "shape": (colour, clip.to_shape, ground),
        "ground": (colour, shape, clip.to_ground),
        "colour+ground": (clip.to_colour, shape, clip.to_ground),
    }


class OfflineSuite(Suite):
    """Drawn clips; the oracle judges.

    Args:
        name: of the suite.
        clips: by name; each lies in `folder` as `<name>.mp4`.
        folder: of the clips' videos.
        seeds: one case of each edit a seed.
    """

    def __init__(self, name: str, clips: Mapping[str, DrawnClip], folder: Path, seeds: Sequence[int]) -> None:
        self.drawn = dict(clips)
        super().__init__(
            name,
            clips=[SuiteClip(key, folder / f"{key}.mp4", clip.caption) for key, clip in clips.items()],
            cases=[
                Case(key, edit, edit, caption(*world, "a {c} {s} moving on {g}"), seed)
                for key, clip in clips.items()
                for seed in seeds
                for edit, world in worlds(clip).items()
            ],
            measures=MEASURES,
        )

    def judge(self, case: Case, frames: Frames, source: Frames) -> dict[str, float]:
        """Return the oracle's scores, by the names of `MEASURES`."""
        target, own = worlds(self.drawn[case.clip])[case.edit], worlds(self.drawn[case.clip])[RECONSTRUCTION]
        readings = read_clip(frames)
        right = np.array([[_shown(r)[k] == target[k] for k in range(3)] for r in readings])  # [F, 3]
        changed = np.array([target[k] != own[k] for k in range(3)])
        edited = changed if changed.any() else ~changed
        return {
            "edited": float(right[:, edited].all(axis=1).mean()),
            "kept": float(right[:, ~changed].all(axis=1).mean()),
            "path": path_correlation(readings, read_clip(source)),
            "flicker": ground_flicker(frames, readings),
            "drift": colour_drift(frames, readings),
        }


def _shown(reading: Reading) -> tuple[str | None, str | None, str]:
    return reading.colour, reading.shape, reading.ground


def offline(seeds: Sequence[int] = (0, 1, 2)) -> OfflineSuite:
    """Make the suite of six clips × (caption + 4 edits) × seeds. No setting is chosen on these clips."""
    return OfflineSuite("offline", SCORED, VIDEOS, seeds)


def offline_development(seeds: Sequence[int] = (0,)) -> OfflineSuite:
    """Make the suite of eight other clips, harder ones, to choose settings on."""
    return OfflineSuite("offline-development", DEVELOPMENT, VIDEOS / "development", seeds)
