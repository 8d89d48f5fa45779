"""Frames in and out of files (PyAV). Frames are uint8 RGB `[F, H, W, 3]`."""

from __future__ import annotations

import io
import tempfile
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
import numpy as np
from numpy.typing import NDArray

from tav.errors import InvalidClip, InvalidConfig
from tav.probe import open_video

Frames = NDArray[np.uint8]
Format = Literal["mp4", "gif", "webm"]
CONTENT_TYPES: dict[str, str] = {"mp4": "video/mp4", "gif": "image/gif", "webm": "video/webm"}
"""The media type of each format."""


def frame_indices(available: int, num_frames: int, start: int = 0, stride: int | None = None) -> list[int]:
    """Which source frames become the clip: spread evenly from `start` to the end, or every `stride`-th.

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


def read_frames(
    path: str | Path, num_frames: int, size: tuple[int, int], start: int = 0, stride: int | None = None
) -> tuple[Frames, float]:
    """Decode chosen frames of a video file, resized to cover `size` and cropped at the centre.

    Args:
        path: a local file.
        num_frames: F ≥ 1.
        size: `(width, height)`.
        start: first source frame.
        stride: None spreads the frames evenly.

    Returns:
        `[F, height, width, 3]` and the rate at which they keep the source's speed, in frames per second.

    Raises:
        InvalidClip: unreadable, or too few frames.
    """
    with open_video(path) as container:
        try:
            available = sum(1 for _ in container.decode(video=0))
        except av.FFmpegError as error:
            raise InvalidClip("the clip cannot be decoded to its end: export it again") from error
    indices = frame_indices(available, num_frames, start, stride)
    wanted: dict[int, Frames] = {}
    with open_video(path) as container:
        stream = container.streams.video[0]
        source_fps = float(stream.average_rate or 0) or 8.0
        for i, frame in enumerate(container.decode(stream)):
            if i in indices:
                wanted[i] = _cover(frame, size)
            if i >= indices[-1]:
                break
    steps = (indices[-1] - indices[0]) / max(num_frames - 1, 1) or 1.0
    return np.stack([wanted[i] for i in indices]), source_fps / steps


def _cover(frame: av.VideoFrame, size: tuple[int, int]) -> Frames:
    if frame.rotation % 360:  # phones store portrait clips as landscape with a turn
        turned = np.rot90(frame.to_ndarray(format="rgb24"), k=round(frame.rotation / 90))
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(turned), format="rgb24")
    width, height = size
    scale = max(width / frame.width, height / frame.height)
    scaled_width, scaled_height = max(width, round(frame.width * scale)), max(height, round(frame.height * scale))
    picture = frame.reformat(scaled_width, scaled_height, format="rgb24", interpolation="AREA" if scale < 1 else "BICUBIC")
    left, top = (scaled_width - width) // 2, (scaled_height - height) // 2
    return np.ascontiguousarray(picture.to_ndarray()[top : top + height, left : left + width])


def encode(frames: Frames, fps: float, format: Format = "mp4") -> bytes:
    """Frames `[F, H, W, 3]` as an H.264 yuv420p mp4 (plays in browsers), a VP9 webm or a looping gif.

    The bytes are the same every time. An odd width or height loses its last column or row, save in a gif: yuv420p wants even
    sizes.
    """
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
    with av.open(path, "w", options={"movflags": "+faststart"}) as container:
        _encode_stream(container, "libx264", {"crf": "14", "preset": "medium"}, frames, fps)


def _encode_vp9(buffer: io.BytesIO, frames: Frames, fps: float) -> None:
    # bitexact: the muxer would otherwise give every file a random id
    with av.open(buffer, "w", format="webm", options={"fflags": "+bitexact"}) as container:
        _encode_stream(container, "libvpx-vp9", {"crf": "20", "b": "0", "deadline": "good", "cpu-used": "2"}, frames, fps)


def _encode_stream(
    container: av.container.OutputContainer, codec: str, options: dict[str, str], frames: Frames, fps: float
) -> None:
    stream = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1001))
    stream.height, stream.width = frames.shape[1:3]
    stream.pix_fmt, stream.options = "yuv420p", {**options, "threads": "1"}
    for picture in frames:
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
    container.mux(stream.encode())


def _encode_gif(frames: Frames, fps: float) -> bytes:
    from PIL import Image  # FFmpeg's gif encoder knows one fixed palette; Pillow fits one to the frames

    buffer = io.BytesIO()
    first, *rest = [Image.fromarray(frame) for frame in frames]
    first.save(buffer, "GIF", save_all=True, append_images=rest, duration=max(20, round(1000 / fps)), loop=0)
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
        """The file's bytes."""
        return encode(self.frames, self.fps, format)

    def save(self, path: str | Path) -> None:
        """Write an mp4, gif or webm, by the path's ending."""
        ending = Path(path).suffix.lower()
        formats: dict[str, Format] = {".mp4": "mp4", ".gif": "gif", ".webm": "webm"}
        if ending not in formats:
            raise InvalidConfig(f"cannot write {ending or 'a file without ending'}: name the file .mp4, .gif or .webm")
        Path(path).write_bytes(self.encode(formats[ending]))
