"""Frames in and out of files (PyAV). Frames are uint8 RGB `[F, H, W, 3]`."""

from __future__ import annotations

import io
import tempfile
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Literal

import av
import numpy as np
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from numpy.typing import NDArray

from tav.errors import InvalidConfig
from tav.media.display import HD_LINES, cover, deinterlaced
from tav.media.source import open_source
from tav.media.timestamps import FASTEST
from tav.probe import Survey

Frames = NDArray[np.uint8]
Format = Literal["mp4", "gif", "webm"]
CONTENT_TYPES: dict[str, str] = {"mp4": "video/mp4", "gif": "image/gif", "webm": "video/webm"}
"""The media type of each format."""
RATES = (0.0002, FASTEST)
"""The slowest and the fastest that is written, in frames per second."""
_SMALL = 128
"""Pixels of the shorter side, up to which x264's macroblock tree is left out: it gives the same frames other bytes each time
(seen at 32 and 64, at no size above). Above it saves a third of the bytes."""


def read_frames(
    path: str | Path, num_frames: int, size: tuple[int, int], start: int = 0, stride: int | None = None
) -> tuple[Frames, float]:
    """Decode chosen frames of a video file as a player shows them, resized to cover `size` and cropped at the centre.

    Args:
        path: a local file.
        num_frames: F ≥ 1.
        size: `(width, height)`.
        start: first source frame.
        stride: None spreads the frames evenly, in time where the file's rate varies.

    Returns:
        `[F, height, width, 3]` and the rate at which they keep the source's speed, in frames per second.

    Raises:
        InvalidClip: unreadable, damaged, cut off, or too few frames.
    """
    return pick_frames(path, Survey(path), num_frames, size, start, stride)


def pick_frames(
    path: str | Path, survey: Survey, num_frames: int, size: tuple[int, int], start: int = 0, stride: int | None = None
) -> tuple[Frames, float]:
    """Read frames as `read_frames` does, from a file that was surveyed before."""
    indices = survey.timing.choose(num_frames, start, stride)
    chosen = dict.fromkeys(indices)
    picked: dict[int, Frames] = {}
    with open_source(path) as source:
        frames = source.frames()
        for i, frame in enumerate(deinterlaced(frames) if survey.interlaced else frames):
            if i in chosen:
                picked[i] = cover(frame, size, source.pixel_aspect)
            if i >= indices[-1]:
                break
    return np.stack([picked[i] for i in indices]), survey.timing.rate_of(indices)


def encode(frames: Frames, fps: float, format: Format = "mp4") -> bytes:
    """Encode frames `[F, H, W, 3]` as an H.264 yuv420p mp4 (plays in browsers), a VP9 webm or a looping gif.

    The bytes are the same every time. An odd width or height loses its last column or row, save in a gif: yuv420p wants even
    sizes. mp4 and webm say which colours they hold: BT.709's matrix from 720 lines on, BT.601's below, as players that do not
    look take them. A gif's frames stay for 20 ms at least: players slow down shorter ones.

    Raises:
        InvalidConfig: no such frames or format, or a rate outside `RATES`.
    """
    if format not in CONTENT_TYPES:
        raise InvalidConfig(f"cannot write {format!r}: ask for mp4, gif or webm")
    if not RATES[0] <= fps <= RATES[1]:
        raise InvalidConfig(f"{fps:g} frames per second will not do: ask for {RATES[0]:g} to {RATES[1]:g}")
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8:
        raise InvalidConfig(f"frames must be uint8 [F, H, W, 3], not {frames.dtype} {list(frames.shape)}")
    if format == "gif":
        return _encode_gif(frames, fps)
    height, width = (n - n % 2 for n in frames.shape[1:3])
    if format == "webm":
        buffer = io.BytesIO()
        _encode_vp9(buffer, frames[:, :height, :width], fps)
        return buffer.getvalue()
    with tempfile.NamedTemporaryFile(suffix=".mp4") as file:  # faststart reads the file again: no in-memory buffer
        _encode_h264(file.name, frames[:, :height, :width], fps)
        return Path(file.name).read_bytes()


def _encode_h264(path: str, frames: Frames, fps: float) -> None:
    tree = {"mbtree": "0"} if min(frames.shape[1:3]) <= _SMALL else {}
    with av.open(path, "w", options={"movflags": "+faststart"}) as container:
        _encode_stream(container, "libx264", {"crf": "14", "preset": "medium", **tree}, frames, fps)


def _encode_vp9(buffer: io.BytesIO, frames: Frames, fps: float) -> None:
    # bitexact: the muxer would otherwise give every file a random id
    with av.open(buffer, "w", format="webm", options={"fflags": "+bitexact"}) as container:
        _encode_stream(container, "libvpx-vp9", {"crf": "20", "b": "0", "deadline": "good", "cpu-used": "2"}, frames, fps)


def _encode_stream(
    container: av.container.OutputContainer, codec: str, options: dict[str, str], frames: Frames, fps: float
) -> None:
    stream = container.add_stream(codec, rate=_rate(fps))
    stream.height, stream.width = frames.shape[1:3]
    stream.pix_fmt, stream.options = "yuv420p", {**options, "threads": "1"}
    context, matrix = stream.codec_context, Colorspace.ITU709 if stream.height >= HD_LINES else Colorspace.ITU601
    context.colorspace = 1 if matrix is Colorspace.ITU709 else 6  # FFmpeg's numbers in files: bt709, smpte170m
    context.color_range, context.color_primaries, context.color_trc = (
        ColorRange.MPEG,
        ColorPrimaries.BT709,
        ColorTrc.IEC61966_2_1,
    )
    for picture in frames:
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        container.mux(stream.encode(frame.reformat(format="yuv420p", dst_colorspace=matrix, dst_color_range=ColorRange.MPEG)))
    container.mux(stream.encode())


def _rate(fps: float) -> Fraction:
    return Fraction(fps).limit_denominator(1001) if fps >= 1 else 1 / Fraction(1 / fps).limit_denominator(1001)


def _encode_gif(frames: Frames, fps: float) -> bytes:
    from PIL import Image  # FFmpeg's gif encoder knows one fixed palette; Pillow fits one to the frames

    buffer = io.BytesIO()
    first, *rest = [Image.fromarray(frame) for frame in frames]
    ends = [round(100 * i / fps) for i in range(len(frames) + 1)]  # hundredths of a second, which is all a gif can say
    shown = [10 * max(2, end - begin) for begin, end in pairwise(ends)]
    first.save(buffer, "GIF", save_all=True, append_images=rest, duration=shown, loop=0)
    return buffer.getvalue()


@dataclass
class Video:
    """A sampled (or source) video."""

    frames: Frames
    """uint8 `[F, H, W, 3]`."""
    fps: float
    latents_sha256: str | None = None
    """Of a sampled video: the digest of the latents it was decoded from."""

    def encode(self, format: Format = "mp4") -> bytes:
        """Return the file's bytes."""
        return encode(self.frames, self.fps, format)

    def save(self, path: str | Path) -> None:
        """Write an mp4, gif or webm, by the path's ending."""
        ending = Path(path).suffix.lower()
        formats: dict[str, Format] = {".mp4": "mp4", ".gif": "gif", ".webm": "webm"}
        if ending not in formats:
            raise InvalidConfig(f"cannot write {ending or 'a file without ending'}: name the file .mp4, .gif or .webm")
        Path(path).write_bytes(self.encode(formats[ending]))
