"""The clip: source frames and their caption."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tav.errors import InvalidClip
from tav.media.decoder import read_frames_isolated
from tav.probe import ClipLimits
from tav.vae import check_size
from tav.video import Frames, Video, read_frames

CaptionSource = Literal["given", "automatic"]


@dataclass
class Clip:
    """Frames uint8 `[F, H, W, 3]`, their rate in frames per second, and the source prompt."""

    frames: Frames
    fps: float
    caption: str
    caption_source: CaptionSource = "given"
    """`automatic`: said by a captioner."""

    @classmethod
    def read(
        cls,
        path: str | Path,
        caption: str,
        num_frames: int = 32,
        size: tuple[int, int] = (512, 512),
        start: int = 0,
        stride: int | None = None,
        limits: ClipLimits | None = None,
    ) -> Clip:
        """Decode a clip; see `tav.video.read_frames` for the arguments.

        Args:
            limits: of an untrusted file, which is then decoded in a process of its own.

        Raises:
            InvalidClip: unreadable, too few frames, beyond the limits, or no caption.
            InvalidConfig: `size` is not a pair of multiples of 8.
        """
        if not caption.strip():
            raise InvalidClip("the clip has no caption: say what it shows, e.g. 'a man is skiing'")
        check_size(*size)
        if limits is None:
            frames, fps = read_frames(path, num_frames, size, start, stride)
        else:
            frames, fps = read_frames_isolated(path, num_frames, size, start, stride, limits)
        return cls(frames, fps, caption.strip())

    @property
    def size(self) -> tuple[int, int]:
        """`(width, height)`."""
        return self.frames.shape[2], self.frames.shape[1]

    def video(self) -> Video:
        """Return the clip's frames as a video."""
        return Video(self.frames, self.fps)
