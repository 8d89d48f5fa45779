"""When frames are shown, and which of them become a clip."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tav.errors import InvalidClip

_USUAL_RATE = 8.0
"""Frames per second of a file that says nothing of time."""
FASTEST = 240.0
"""Frames per second beyond which a file is no video to look at."""
_SAME, _TICKS = 0.01, 0.0015
"""A rate that the file says is right where the times differ by no more than this share, or by rounding two of them to
milliseconds."""


def frame_indices(available: int, num_frames: int, start: int = 0, stride: int | None = None) -> list[int]:
    """Choose the source frames that become the clip: spread evenly from `start` to the end, or every `stride`-th.

    Raises:
        InvalidClip: the source has too few frames.
    """
    if start + num_frames > available:
        raise InvalidClip(f"the clip has {available} frames, too few for {num_frames} from frame {start}: ask for fewer")
    if stride is None:
        return [int(i) for i in np.linspace(start, available - 1, num_frames).round()]
    last = start + (num_frames - 1) * stride
    if last >= available:
        raise InvalidClip(
            f"{num_frames} frames at stride {stride} from frame {start} need {last + 1} frames, the clip has {available}: "
            "ask for fewer frames or a smaller stride"
        )
    return list(range(start, last + 1, stride))


class Timing:
    """The times of a file's frames.

    Presentation times count where they grow from frame to frame. Elsewhere (none at all, or files whose times run backwards
    though their frames come out in order) it is the frames' order that counts, at the rate that the file says.

    Args:
        times: seconds at which frames are shown, in the order of decoding; None: not known.
        last: seconds that the last frame is shown; 0: not known.
        said_rate: frames per second that the file says.
    """

    def __init__(self, times: Sequence[float | None], last: float = 0.0, said_rate: float | None = None) -> None:
        known = np.array([np.nan if time is None else time for time in times], float)
        steps = np.diff(known)
        self.count = len(known)
        self.notes: list[str] = []
        self._times = known - known[0] if len(steps) and bool((steps > 0).all()) else None
        if self._times is None:
            span = float(np.nanmax(known) - np.nanmin(known)) if np.isfinite(known).any() else 0.0
            measured = len(steps) / span if span > 0 else None
            self.rate = said_rate or measured or _USUAL_RATE
            self.duration = self.count / self.rate
            if len(steps):
                self.notes.append("presentation times do not grow: frames taken in their order")
            if not (said_rate or measured):
                self.notes.append(f"no times in the file: taken for {_USUAL_RATE:g} frames a second")
            return
        span = float(self._times[-1])
        right = said_rate and abs(len(steps) / said_rate - span) <= max(_SAME * span, _TICKS)
        self.rate = said_rate if said_rate and right else len(steps) / span
        self.duration = span + (last or 1 / self.rate)
        if np.abs(self._times - np.linspace(0, span, self.count)).max() <= 0.5 * span / len(steps):
            self._times = None  # numbers say the same, without the rounding of times
        else:
            self.notes.append("variable frame rate: frames chosen by time")

    def choose(self, num_frames: int, start: int = 0, stride: int | None = None) -> list[int]:
        """Choose as `frame_indices` does, from this file. Where its rate varies, spread evenly means evenly in time.

        Of each moment the nearest frame is taken; in a long gap one may so come twice.

        Raises:
            InvalidClip: there are too few frames.
        """
        indices = frame_indices(self.count, num_frames, start, stride)
        if self._times is None or stride is not None or num_frames in (1, self.count - start):
            return indices
        moments = np.linspace(self._times[start], self._times[-1], num_frames)
        halfway = (self._times[1:] + self._times[:-1]) / 2
        return [int(i) for i in np.searchsorted(halfway, moments)]

    def rate_of(self, indices: Sequence[int]) -> float:
        """Return the frames per second at which chosen frames keep the source's speed."""
        first, last, steps = indices[0], indices[-1], len(indices) - 1
        if self._times is not None and last > first:
            return min(steps / float(self._times[last] - self._times[first]), FASTEST)
        return self.rate / ((last - first) / max(steps, 1) or 1.0)
