"""What is evaluated: clips, and the edits asked of them.

A suite is a list of clips and of cases. It comes from a folder in the LOVEU-TGVE layout (`tav.eval.layout`) or is built in
(`offline`). A built-in suite may judge a video by what only it knows; scores that suit any video are in `tav.eval.scores`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from tav.errors import InvalidConfig
from tav.video import Frames

RECONSTRUCTION = "source"
"""Category of the cases that ask for the clip itself, by its caption. The means over all edits leave them out."""


@dataclass(frozen=True)
class Measure:
    """How a score is named and read."""

    name: str
    better: Literal["higher", "lower"]
    about: str
    """One sentence."""
    format: str = ".3f"
    """As in `format(value, measure.format)`: `.0%` for shares."""


@dataclass(frozen=True)
class Case:
    """One video to make."""

    clip: str
    """Name of a clip of the suite."""
    edit: str
    """Names the edit among those of its clip: letters, digits, `+`, `-`, `_`."""
    category: str
    """Kind of edit: style, object, background, multiple, colour, … or `RECONSTRUCTION`."""
    prompt: str
    seed: int = 0
    """Of everything random that makes the video, tuning included."""


@dataclass(frozen=True)
class SuiteClip:
    """One source."""

    name: str
    path: Path
    """A video file, or a folder of frames."""
    caption: str
    options: Mapping[str, Any] = field(default_factory=dict)
    """Overrides of the base's `ClipConfig`: num_frames, size, start, stride."""
    set: str = ""
    """The collection it belongs to (LOVEU: DAVIS_480p, …); empty: the suite's name."""


class Suite:
    """Clips and cases.

    Args:
        name: letters, digits, `-`, `_`.
        clips: the sources.
        cases: seeds expanded: one case a seed.
        measures: what `judge` gives; empty where it gives nothing.

    Raises:
        InvalidConfig: no case, a case of an unknown clip, or two that are the same.
    """

    def __init__(self, name: str, clips: Sequence[SuiteClip], cases: Sequence[Case], measures: Sequence[Measure] = ()) -> None:
        self.name = name
        self.clips = tuple(clips)
        self.cases = tuple(cases)
        self.measures = tuple(measures)
        self._by_name = {clip.name: clip for clip in self.clips}
        if not self.cases:
            raise InvalidConfig(f"suite {name} has no edits to make")
        if len(self._by_name) < len(self.clips):
            raise InvalidConfig(f"two clips of suite {name} have one name: give each its own")
        if unknown := {case.clip for case in self.cases} - set(self._by_name):
            raise InvalidConfig(f"suite {name} has edits of clips it does not have: {', '.join(sorted(unknown))}")
        if len({(case.clip, case.edit, case.seed) for case in self.cases}) < len(self.cases):
            raise InvalidConfig(f"two edits of one clip in suite {name} have one name and seed: give each its own")

    def clip(self, name: str) -> SuiteClip:
        """Return the clip of that name."""
        return self._by_name[name]

    def set_of(self, name: str) -> str:
        """Return the collection a clip belongs to, a folder's name."""
        return self._by_name[name].set or self.name

    def only(self, clips: Sequence[str] = (), edits: Sequence[str] = ()) -> Self:
        """Return the suite with these clips and edits alone; none named: all.

        Raises:
            InvalidConfig: a name that the suite does not have.
        """
        for what, named, known in (
            ("clip", clips, self._by_name),
            ("edit", edits, dict.fromkeys(case.edit for case in self.cases)),
        ):
            if unknown := set(named) - set(known):
                raise InvalidConfig(f"suite {self.name} has no {what} {', '.join(sorted(unknown))}; it has {', '.join(known)}")
        less = copy(self)
        less.clips = tuple(clip for clip in self.clips if not clips or clip.name in clips)
        less._by_name = {clip.name: clip for clip in less.clips}
        less.cases = tuple(c for c in self.cases if c.clip in less._by_name and (not edits or c.edit in edits))
        return less

    def judge(self, case: Case, frames: Frames, source: Frames) -> dict[str, float]:
        """Score what only this suite can, by the names of `measures`.

        Args:
            case: what was asked.
            frames: the video, uint8 `[F, H, W, 3]`.
            source: the clip's frames that it was made from, uint8 `[F, H, W, 3]`.
        """
        return {}
