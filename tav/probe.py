"""Looks at a clip before anything else touches it: every frame is decoded once. No torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import av
from pydantic import BaseModel, Field

from tav.errors import InvalidClip
from tav.media.display import colour_notes, cover, shown_size
from tav.media.source import Source, open_source
from tav.media.timestamps import FASTEST, Timing

_LONGEST_SHAPE = 20
"""The longer side over the shorter."""
_SAME_SHAPE = 0.02
_RESIZED = "the picture's size changes"
_MISSING = 0.1
"""Share of what the container says that may be missing where it says seconds, which writers round and estimate."""


class ClipLimits(BaseModel):
    """What is accepted as a clip. Pixels are those of every frame."""

    max_bytes: int = Field(256 << 20, description="File size.")
    max_pixels: int = Field(3840 * 2160, description="Width × height.")
    max_seconds: float = Field(60.0, description="Duration.")
    min_frames: int = Field(2, description="One frame has no motion to learn.")


class ClipProbe(BaseModel):
    """What the file holds; every frame has been decoded once."""

    width: int = Field(gt=0, description="As shown: turned as the file says, in square pixels.")
    height: int = Field(gt=0)
    num_frames: int = Field(gt=0)
    fps: float = Field(gt=0, le=FASTEST, description="By the frames' times.")
    duration: float = Field(gt=0, allow_inf_nan=False, description="Seconds.")
    codec: str = Field(max_length=20)
    notes: list[Annotated[str, Field(max_length=100)]] = Field(
        default_factory=list, max_length=10, description="What is done to its pixels or times, e.g. `deinterlaced`."
    )


class Survey:
    """One look at every frame.

    Args:
        path: a local file.
        limits: None: any size and length, and one frame will do.

    Raises:
        InvalidClip: says which limit it breaks, or that it cannot be decoded.
    """

    def __init__(self, path: str | Path, limits: ClipLimits | None = None) -> None:
        if limits and (size := Path(path).stat().st_size) > limits.max_bytes:
            raise InvalidClip(f"the clip has {size} bytes, more than the {limits.max_bytes} allowed: shorten or compress it")
        self.interlaced, self._notes = False, dict[str, None]()
        self._times: list[float | None] = []
        with open_source(path, limits.max_pixels if limits else None) as source:
            self._codec, self._aspect, last = source.codec, source.pixel_aspect, 0.0
            for frame in _within(source.frames(), limits):
                self._look(frame)
                last = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else 0.0
            self.timing = self._timed(source, last, limits)

    def probe(self) -> ClipProbe:
        """Return what the file holds."""
        return ClipProbe(
            width=self._shown[0],
            height=self._shown[1],
            num_frames=self.timing.count,
            fps=self.timing.rate,
            duration=self.timing.duration,
            codec=self._codec,
            notes=[*self._notes, *self.timing.notes],
        )

    def _look(self, frame: av.VideoFrame) -> None:
        stored = frame.width, frame.height
        shown = shown_size(frame, self._aspect)
        if not self._times:
            self._stored, self._shown = stored, shown
            if max(shown) > _LONGEST_SHAPE * min(shown):
                raise InvalidClip(f"the clip is {shown[0]}x{shown[1]}, longer than {_LONGEST_SHAPE} to 1: crop it")
            cover(frame, (8, 8), self._aspect)  # that it can be
            if shown != stored:
                self._note(f"{stored[0]}x{stored[1]} as stored")
        elif (stored, shown) != (self._stored, self._shown):
            number, (width, height) = len(self._times), self._shown
            if abs(shown[0] * height / (shown[1] * width) - 1) > _SAME_SHAPE:
                raise InvalidClip(
                    f"the picture turns from {width}x{height} to {shown[0]}x{shown[1]} at frame {number}: cut it there"
                )
            self._note(_RESIZED)
        if frame.interlaced_frame:
            self.interlaced = True
            self._note("deinterlaced")
        if self.interlaced and _RESIZED in self._notes:
            raise InvalidClip(
                f"the clip is interlaced, and its picture's size changes at frame {len(self._times)}: cut it there"
            )
        for note in colour_notes(frame):
            self._note(note)
        self._times.append(frame.time)

    def _note(self, text: str) -> None:
        self._notes[text] = None

    def _timed(self, source: Source, last: float, limits: ClipLimits | None) -> Timing:
        count = len(self._times)
        if count < (limits.min_frames if limits else 1):
            raise InvalidClip(f"the clip has {count} frame(s): at least {limits.min_frames if limits else 1} are needed")
        timing = Timing(self._times, last, source.rate)
        said, end = source.said_seconds, self._times[-1]
        if said is not None and end is not None and said - (end + last) > max(_MISSING * said, 3 / timing.rate):
            raise InvalidClip(f"the clip is cut off: it says {said:.1f} seconds and ends at {end:.1f}: export it again")
        if timing.rate > FASTEST:
            raise InvalidClip(f"the clip has {timing.rate:.0f} frames a second, more than {FASTEST:g}: slow it down")
        if limits and timing.duration > limits.max_seconds + 1e-6:
            raise _too_long(limits)
        return timing


def _within(frames: Iterator[av.VideoFrame], limits: ClipLimits | None) -> Iterator[av.VideoFrame]:
    """Yield the frames, up to the first one beyond the time allowed."""
    first: float | None = None
    for number, frame in enumerate(frames):
        if limits:
            first = frame.time if first is None else first
            beyond = first is not None and frame.time is not None and frame.time - first > limits.max_seconds
            if beyond:
                raise _too_long(limits)
            if number >= FASTEST * limits.max_seconds:
                raise InvalidClip(f"the clip has more than {number} frames: cut it, or take out frames")
        yield frame


def _too_long(limits: ClipLimits) -> InvalidClip:
    return InvalidClip(f"the clip is longer than {limits.max_seconds:g} seconds: cut it")


def probe(path: str | Path, limits: ClipLimits | None = None) -> ClipProbe:
    """Decode a clip within `limits`, or the default ones.

    Raises:
        InvalidClip: says which limit it breaks, or that it cannot be decoded.
    """
    return Survey(path, limits or ClipLimits()).probe()
