"""Video files of every kind, written small: pictures that tell their number and which way is up, and ways to spoil a file."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition
from numpy.typing import NDArray
from PIL import Image

Picture = NDArray[np.uint8]
Setup = Callable[[Any], None]

WIDTH, HEIGHT, COUNT, RATE = 96, 64, 12, 12
GROUND = 60
_MUXERS = {".mkv": "matroska", ".ts": "mpegts", ".mts": "mpegts", ".m2ts": "mpegts"}
_PIXELS = {"mjpeg": "yuvj420p", "prores_ks": "yuv422p10le", "gif": "rgb8", "libx264rgb": "rgb24"}
_QUIET = {"libx265": {"x265-params": "log-level=none"}}


def picture(share: float, width: int = WIDTH, height: int = HEIGHT) -> Picture:
    """A white bar at `share` of its way across the middle, red at the top left, blue at the bottom right."""
    made = np.full((height, width, 3), GROUND, np.uint8)
    side = height // 4
    made[:side, :side] = (230, 20, 20)
    made[-side:, -side:] = (20, 20, 230)
    left = round(share * (width - side))
    made[3 * side // 2 : 5 * side // 2, left : left + side] = 255
    return made


def pictures(count: int = COUNT, width: int = WIDTH, height: int = HEIGHT) -> list[Picture]:
    """The bar's way across."""
    return [picture(i / (count - 1), width, height) for i in range(count)]


def bar(frame: Picture) -> float:
    """The share that a frame shows, read off it."""
    height, width = frame.shape[:2]
    side = height // 4
    middle = frame[height // 2 - 2 : height // 2 + 2].min(-1).mean(0)
    return float((np.flatnonzero(middle > 150).mean() - (side - 1) / 2) / (width - side))


def upright(frame: Picture) -> bool:
    """Red at the top left, blue at the bottom right, and neither elsewhere."""
    half = max(2, frame.shape[0] // 8)
    tl, tr, bl, br = (frame[y, x].astype(int) for y in (half, -half) for x in (half, -half))
    red, blue = (lambda p: p[0] - max(p[1], p[2]) > 80), (lambda p: p[2] - max(p[0], p[1]) > 80)
    return red(tl) and blue(br) and not any(test(p) for p in (tr, bl) for test in (red, blue))


def write(
    path: Path,
    frames: Sequence[Picture | av.VideoFrame],
    codec: str,
    *,
    times: Sequence[float] | None = None,
    base: Fraction = Fraction(1, 12_000),
    pixels: str | None = None,
    aspect: Fraction | None = None,
    options: dict[str, str] | None = None,
    muxer: dict[str, str] | None = None,
    setup: Setup | None = None,
    packets: Callable[[list[Any]], list[Any]] | None = None,
) -> Path:
    """One stream of these frames.

    Args:
        path: its ending says the container.
        frames: pictures, or frames as they are.
        codec: FFmpeg's encoder.
        times: seconds; None: `RATE` frames a second.
        base: of the times.
        pixels: pixel format.
        aspect: of a pixel.
        options: of the encoder.
        muxer: options of the container.
        setup: what else is done to the codec's context.
        packets: what is done to the packets before they are written.
    """
    with av.open(str(path), "w", format=_MUXERS.get(path.suffix, path.suffix[1:]), options=muxer or {}) as file:
        stream = file.add_stream(codec, rate=RATE, options={**_QUIET.get(codec, {}), **(options or {})})
        first = frames[0]
        stream.height, stream.width = first.shape[:2] if isinstance(first, np.ndarray) else (first.height, first.width)
        stream.pix_fmt = pixels or _PIXELS.get(codec, "yuv420p")
        if aspect:
            stream.sample_aspect_ratio = aspect
        if times is not None:
            stream.codec_context.time_base = base
        if setup:
            setup(stream.codec_context)
        made = []
        for i, shown in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(shown, format="rgb24") if isinstance(shown, np.ndarray) else shown
            if times is not None:
                frame.pts, frame.time_base = round(times[i] / base), base
            made += stream.encode(frame)
        made += stream.encode()
        for packet in packets(made) if packets else made:
            file.mux(packet)
    return path


def write_streams(path: Path, streams: Sequence[tuple[str, Sequence[Picture], Disposition]], sound: bool = False) -> Path:
    """Several streams of (encoder, pictures, disposition), with silence before them if asked."""
    with av.open(str(path), "w", format=_MUXERS.get(path.suffix, path.suffix[1:])) as file:
        audio = file.add_stream("aac", rate=48_000, layout="mono") if sound else None
        made = []
        for codec, shown, disposition in streams:
            stream = file.add_stream(codec, rate=RATE)
            stream.height, stream.width = shown[0].shape[:2]
            stream.pix_fmt = _PIXELS.get(codec, "yuv420p")
            stream.disposition = disposition
            made.append((stream, shown))
        if audio is not None:
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 24_000), np.float32), format="fltp", layout="mono")
            silence.sample_rate, silence.pts = 48_000, 0
            for packet in [*audio.encode(silence), *audio.encode()]:
                file.mux(packet)
        for stream, shown in made:
            for frame in shown:
                file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            file.mux(stream.encode())
    return path


def write_webp(path: Path, frames: Sequence[Picture], milliseconds: int | list[int] = 80, **options: Any) -> Path:
    """An animated WebP."""
    first, *rest = [Image.fromarray(frame) for frame in frames]
    first.save(path, "WEBP", save_all=True, append_images=rest, duration=milliseconds, loop=0, **options)
    return path


def turned(path: Path, *matrix: int) -> Path:
    """An mp4's display matrix replaced: a, b, c, d of ISO 14496-12, as whole numbers."""
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 44
    a, b, c, d = matrix
    data[place : place + 36] = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def cut(path: Path, share: float) -> Path:
    """Its first part alone."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def spoiled(path: Path, share: float = 0.5, count: int = 40, after: bytes | None = None) -> Path:
    """Some bytes replaced, at a share of the file or of what comes after a marker."""
    data = bytearray(path.read_bytes())
    start = data.index(after) if after else 0
    place = start + int((len(data) - start) * share)
    data[place : place + count] = bytes((7 * i + 129) % 256 for i in range(count))
    path.write_bytes(data)
    return path


def without(path: Path, share: float, count: int) -> Path:
    """Some bytes taken out."""
    data = path.read_bytes()
    place = int(len(data) * share)
    path.write_bytes(data[:place] + data[place + count :])
    return path


def replaced(path: Path, old: bytes, new: bytes) -> Path:
    """The first such bytes replaced by as many."""
    data = path.read_bytes()
    assert old in data and len(old) == len(new)
    path.write_bytes(data.replace(old, new, 1))
    return path


def levels(rgb: Sequence[float], count: int = 3, width: int = WIDTH, height: int = HEIGHT) -> list[av.VideoFrame]:
    """Frames of one full-range signal, red, green, blue in 0–1, with 16 bits."""
    signal = np.tile(np.round(np.array(rgb) * 65535).astype(np.uint16), (height, width, 1))
    return [av.VideoFrame.from_ndarray(signal, format="rgb48le") for _ in range(count)]


def coloured(matrix: int, transfer: int, primaries: int) -> Setup:
    """Colour tags, by FFmpeg's numbers."""

    def setup(context: Any) -> None:
        context.colorspace, context.color_trc, context.color_primaries = matrix, transfer, primaries

    return setup


def woven(count: int = COUNT, width: int = WIDTH, height: int = HEIGHT) -> list[Picture]:
    """Interlaced pictures: the even lines of each moment, the odd ones of half a frame later."""
    moments = pictures(2 * count, width, height)
    made = []
    for i in range(count):
        frame = moments[2 * i].copy()
        frame[1::2] = moments[2 * i + 1][1::2]
        made.append(frame)
    return made


def combing(frame: Picture) -> float:
    """How much neighbouring lines differ within the bar's rows, where nothing drawn differs."""
    height = frame.shape[0]
    rows = frame[height // 2 - 6 : height // 2 + 6].astype(int)
    return float(np.abs(np.diff(rows, axis=0)).mean())
