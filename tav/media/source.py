"""One video stream of a file, frame by frame: the stream that a player shows, whole, and never beyond its limits.

Nothing here changes a pixel; `tav.media.display` does.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from av.stream import Disposition
from av.video.stream import VideoStream
from PIL import Image, UnidentifiedImageError

from tav.errors import InvalidClip
from tav.media.integrity import check_whole, is_webp

FORMATS = "mov,matroska,avi,gif,mpegts"
"""FFmpeg demuxers for mp4/mov, mkv/webm, avi, gif, and ts/mts/m2ts. Playlists and `concat` are out: they open other files."""
CODECS = frozenset({"h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "mjpeg", "gif", "prores", "webp"})
_BESIDE = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image | Disposition.dependent
"""What no player takes for the video: covers, chapter pictures, parts of other streams."""
_DECODER_SLACK = 4
"""The decoder itself stops at so many times the pixels allowed: below, there is time for a sentence that says the size."""


class Source(AbstractContextManager["Source"], ABC):
    """A file's video. Its frames are decoded once for each call of `frames`."""

    codec: str
    size: tuple[int, int]
    """As the header has it; frames may differ."""
    rate: float | None
    """Frames per second that the file says, which is not always what it holds."""
    pixel_aspect: Fraction
    """Width of a pixel over its height."""
    said_frames: int = 0
    """What the container says it holds; 0: it does not say."""
    said_seconds: float | None = None
    """How long the container says it lasts, where it does not count frames."""

    def __init__(self, max_pixels: int | None) -> None:
        self._max_pixels = max_pixels

    @abstractmethod
    def frames(self) -> Iterator[av.VideoFrame]:
        """Yield every frame, in the order they are shown, with `pts` where the file has them.

        Raises:
            InvalidClip: one is damaged, missing or too large.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of the file."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _check_size(self, width: int, height: int) -> None:
        if self._max_pixels is not None and width * height > self._max_pixels:
            raise InvalidClip(f"the clip is {width}x{height}, more than {self._max_pixels} pixels: scale it down")


def open_source(path: str | Path, max_pixels: int | None = None) -> Source:
    """Open a local video file; nothing it refers to is opened.

    Args:
        path: the file.
        max_pixels: width × height of any frame; None: whatever it has.

    Raises:
        InvalidClip: not a video in one of the accepted containers and codecs, cut off, or too large.
    """
    check_whole(path)
    return _Webp(path, max_pixels) if is_webp(path) else _Container(path, max_pixels)


class _Container(Source):
    def __init__(self, path: str | Path, max_pixels: int | None) -> None:
        super().__init__(max_pixels)
        try:
            options = {"format_whitelist": FORMATS, "protocol_whitelist": "file"}
            self._file = av.open(str(path), options=options, metadata_errors="replace")  # titles in any old encoding
        except (av.FFmpegError, OSError) as error:
            raise InvalidClip(
                "the clip is not a readable video: send an mp4 (H.264), mov, mkv, webm, avi, ts, mts, gif or WebP file"
            ) from error
        try:
            self._stream = stream = _shown_stream(self._file)
            self.codec, self.size = stream.codec_context.codec.canonical_name, (stream.width, stream.height)
            if self.codec not in CODECS:
                raise InvalidClip(f"codec {self.codec!r} is not supported: send one of {', '.join(sorted(CODECS))}")
            self._check_size(*self.size)
        except BaseException:
            self._file.close()
            raise
        if max_pixels is not None:
            stream.codec_context.options = {"max_pixels": str(_DECODER_SLACK * max_pixels + (1 << 20))}
        self.rate = float(stream.average_rate or 0) or None
        self.pixel_aspect = stream.sample_aspect_ratio or Fraction(1)
        self.said_frames = stream.frames
        if "matroska" in self._file.format.name:
            self.said_seconds = _said_seconds(self._file, stream)

    def frames(self) -> Iterator[av.VideoFrame]:
        packets = count = 0
        try:
            for packet in self._file.demux(self._stream):
                packets += bool(packet.size)
                for frame in packet.decode():
                    if frame.is_corrupt:
                        raise _damaged(count)
                    self._check_size(frame.width, frame.height)
                    yield frame
                    count += 1
                if packet.is_corrupt:
                    raise _damaged(count)
        except av.FFmpegError as error:
            raise InvalidClip(f"the clip breaks off after frame {count}: export it again") from error
        if packets < self.said_frames:
            raise InvalidClip(f"the clip is cut off: it says {self.said_frames} frames and has {packets}: export it again")

    def close(self) -> None:
        self._file.close()


class _Webp(Source):
    """Animated WebP, by Pillow: FFmpeg's decoder knows still pictures only."""

    codec = "webp"
    pixel_aspect = Fraction(1)
    rate = None

    def __init__(self, path: str | Path, max_pixels: int | None) -> None:
        super().__init__(max_pixels)
        try:
            self._picture = Image.open(path, formats=["WEBP"])
        except (UnidentifiedImageError, Image.DecompressionBombError, OSError) as error:
            raise InvalidClip("the clip is not a readable WebP animation: export it again, or send an mp4") from error
        self.size = self._picture.size
        try:
            self._check_size(*self.size)
        except InvalidClip:
            self.close()
            raise
        self.said_frames = getattr(self._picture, "n_frames", 1)

    def frames(self) -> Iterator[av.VideoFrame]:
        shown_ms = 0
        for number in range(self.said_frames):
            try:
                self._picture.seek(number)
                layer = self._picture.convert("RGBA")
            except (OSError, EOFError, ValueError) as error:
                raise InvalidClip(f"the clip breaks off after frame {number}: export it again") from error
            ground = Image.new("RGBA", layer.size, "white")  # as pages show what is transparent
            picture = np.asarray(Image.alpha_composite(ground, layer).convert("RGB"))
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            duration = int(self._picture.info.get("duration", 0))
            frame.pts, frame.duration, frame.time_base = shown_ms, duration, Fraction(1, 1000)
            shown_ms += duration
            yield frame

    def close(self) -> None:
        self._picture.close()


def _damaged(frame: int) -> InvalidClip:
    return InvalidClip(f"the clip is damaged at frame {frame}: export it again, or cut that part out")


def _shown_stream(file: av.container.InputContainer) -> VideoStream:
    """Choose the stream that a player shows: no picture beside it; of moving ones the default, the largest, the first."""
    streams = [stream for stream in file.streams.video if not stream.disposition & _BESIDE]
    if not streams:
        raise InvalidClip("the clip has no video stream: send a file with moving pictures in it")
    known = [stream for stream in streams if stream.codec_context is not None]
    if not known:
        raise InvalidClip(f"the clip's codec is not known: send one of {', '.join(sorted(CODECS))}")

    def rank(stream: VideoStream) -> tuple[bool, bool, int, int]:
        default = bool(stream.disposition & Disposition.default)
        return stream.frames != 1, default, stream.width * stream.height, -stream.index

    return max(known, key=rank)


def _said_seconds(file: av.container.InputContainer, stream: VideoStream) -> float | None:
    """Read what Matroska says of one track, or of the file where that is its only one."""
    if match := re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", stream.metadata.get("DURATION", "").strip("\0 ")):
        hours, minutes, seconds = match.groups()
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    return file.duration / av.time_base if len(file.streams) == 1 and file.duration else None
