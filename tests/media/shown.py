"""Files as people have them, and the frames that each must come to."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.stream import Disposition

from tests.media.expected import (
    FAST,
    M2TS,
    Case,
    Colour,
    Good,
    Made,
    Refused,
    kind,
)
from tests.media.files import (
    COUNT,
    GROUND,
    HEIGHT,
    RATE,
    WIDTH,
    Picture,
    coloured,
    levels,
    picture,
    pictures,
    replaced,
    turned,
    woven,
    write,
    write_streams,
    write_webp,
)

_OPEN = {"live": "1"}
"""Matroska as browsers record it: neither its length nor a rate, nor how many bytes will come."""
_VARIABLE = "variable frame rate: frames chosen by time"
_ORDER = "presentation times do not grow: frames taken in their order"

WHOLE: list[Case] = [
    Case(f"{codec} in {name.split('.')[1]}", kind(name, codec, **options), Good(**expected))  # type: ignore[arg-type]
    for name, codec, options, expected in [
        ("a.mp4", "libx264", {}, {}),
        ("a.mp4", "libx265", {}, {}),
        ("a.mp4", "libsvtav1", {"options": FAST}, {}),
        ("a.mp4", "libvpx-vp9", {}, {}),
        ("a.mp4", "mpeg4", {}, {}),
        ("a.mov", "libx264", {}, {}),
        ("a.mov", "libx265", {}, {}),
        ("a.mov", "prores_ks", {}, {}),
        ("a.mov", "mjpeg", {}, {}),
        ("a.mkv", "libx264", {}, {}),
        ("a.mkv", "libx265", {}, {}),
        ("a.mkv", "libvpx", {}, {}),
        ("a.mkv", "mpeg4", {}, {}),
        ("a.mkv", "mjpeg", {}, {}),
        ("a.webm", "libvpx", {}, {}),
        ("a.webm", "libvpx-vp9", {}, {}),
        ("a.webm", "libsvtav1", {"options": FAST}, {}),
        ("a.avi", "mpeg4", {}, {}),
        ("a.avi", "mjpeg", {}, {}),
        ("a.avi", "libx264", {"options": {"bf": "0"}}, {}),
        ("a.ts", "libx264", {}, {}),
        ("a.ts", "libx265", {}, {}),
        ("a.mts", "libx264", {"muxer": M2TS}, {}),
        ("a.m2ts", "libx264", {"muxer": M2TS}, {}),
        ("a.gif", "gif", {}, {}),
    ]
] + [
    Case("animated WebP, lossless", lambda f: write_webp(f / "a.webp", pictures(), lossless=True), Good(seconds=0.96)),
    Case("animated WebP, lossy", lambda f: write_webp(f / "a.webp", pictures(), quality=80), Good(seconds=0.96)),
    Case("x264 4:4:4", kind("a.mp4", "libx264", pixels="yuv444p"), Good()),
    Case("x264 4:2:2, 10 bits", kind("a.mkv", "libx264", pixels="yuv422p10le"), Good()),
    Case("x264 RGB", kind("a.mkv", "libx264rgb"), Good()),
    Case("x264 grey", kind("a.mp4", "libx264", pixels="gray"), Good(upright=False)),
    Case("VP9 4:4:4", kind("a.webm", "libvpx-vp9", pixels="yuv444p"), Good()),
    Case("full range", kind("a.mp4", "libx264", pixels="yuvj420p"), Good()),
    Case("odd sides", lambda f: write(f / "a.mkv", pictures(width=95, height=63), "libx264", pixels="yuv444p"), Good((95, 63))),
    Case("fragmented mp4", kind("a.mp4", "libx264", muxer={"movflags": "frag_keyframe+empty_moov"}), Good()),
    Case("mp4 with its index first", kind("a.mp4", "libx264", muxer={"movflags": "+faststart"}), Good()),
    Case("name of another kind", lambda f: write(f / "a.webm", pictures(), "libvpx").rename(f / "a.mp4"), Good()),
]


def _rateless(path: Path) -> Path:
    """Matroska's DefaultDuration made void."""
    data = path.read_bytes()
    place = data.index(b"\x23\xe3\x83")
    size = 4 + (data[place + 3] & 0x7F)
    return replaced(path, data[place : place + size], b"\xec" + bytes([0x80 | size - 2]) + bytes(size - 2))


def _long_recording(folder: Path) -> Path:
    steps = np.random.default_rng(1).choice([24, 30, 33, 34, 36, 45], 299) / 1000
    times = [0.0, *np.cumsum(steps)]
    frames = [picture(time / times[-1], 32, 32) for time in times]
    return _rateless(write(folder / "a.webm", frames, "libvpx", times=times, base=Fraction(1, 1000), muxer=_OPEN))


def _timed(name: str, codec: str, times: list[float], base: Fraction = Fraction(1, 1000), **options: object) -> Made:
    frames = [picture(time / times[-1]) for time in times]
    return lambda folder: write(folder / name, frames, codec, times=times, base=base, **options)  # type: ignore[arg-type]


def _backwards(packets: list[av.Packet]) -> list[av.Packet]:
    """Presentation times that are the decoding times, as some writers leave them, though there are B-frames."""
    first = packets[0].dts or 0
    for packet in packets:
        assert packet.dts is not None
        packet.pts = packet.dts = packet.dts - first
    return packets


_DENSE = [*np.arange(0, 1, 1 / 10), *np.arange(1, 4, 1 / 2), *np.arange(4, 5.01, 1 / 10)]
_GAP = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 2.5, 2.6, 2.7, 2.8, 2.9, 3.0]
"""Nothing new for two seconds, as in a recorded screen."""

TIMES: list[Case] = [
    Case("browser's recording without rate", _long_recording, Good((32, 32), 300, 10.1, [_VARIABLE], tolerance=0.08)),
    Case(
        "variable rate in mp4",
        _timed("a.mp4", "libx264", _DENSE, Fraction(1, 6000)),
        Good(count=len(_DENSE), seconds=5.1, notes=[_VARIABLE], tolerance=0.06),
    ),
    Case(
        "variable rate in mkv",
        _timed("a.mkv", "libx264", _DENSE),
        Good(count=len(_DENSE), seconds=5.1, notes=[_VARIABLE], tolerance=0.06),
    ),
    Case(
        "variable rate in WebP",
        lambda f: write_webp(
            f / "a.webp", [picture(s) for s in (0, 0.1, 0.2, 0.6, 1)], [100, 100, 400, 400, 100], lossless=True
        ),
        Good(count=5, seconds=1.1, notes=[_VARIABLE], shares=[0, 0.2, 0.6, 1], tolerance=0.03),
    ),
    Case(
        "a still while in mp4",
        _timed("a.mp4", "libx264", _GAP, Fraction(1, 6000)),
        Good(seconds=3.1, notes=[_VARIABLE], shares=[0, 0.5 / 3, 2.5 / 3, 1]),
    ),
    Case("times that run backwards", kind("a.mp4", "libx264", packets=_backwards), Good(notes=[_ORDER])),
    Case(
        "times that begin late",
        _timed("a.mkv", "libx264", [5 + i / 12 for i in range(12)]),
        Good(shares=[(5 + i / 3) * 12 / 71 for i in (0, 1, 1.75, 2.75)], upright=True, tolerance=0.02),
    ),
    Case("one frame a second", _timed("a.mp4", "libx264", [float(i) for i in range(12)], Fraction(1, 6000)), Good(seconds=12)),
    Case(
        "61 frames in 61 seconds",
        _timed("a.mp4", "mpeg4", [float(i) for i in range(62)], Fraction(1, 1000)),
        Refused("longer than 60 seconds"),
    ),
    Case("1,000 frames a second", _timed("a.mkv", "libx264", [i / 1000 for i in range(12)]), Refused("1000 frames a second")),
    Case(
        "5,000 frames a second",
        lambda f: write(
            f / "a.mkv",
            pictures(3, 16, 16) * 4900,
            "mpeg4",
            times=[i / 1000 * 0.2 for i in range(14_700)],
            base=Fraction(1, 5000),
        ),
        Refused("more than 14400 frames"),
    ),
]


def _hdr(name: str, codec: str, matrix: int, transfer: int, primaries: int, rgb: list[float], **options: object) -> Made:
    """One colour, as signal values of the standard named by the tags."""

    def make(folder: Path) -> Path:
        frames = [frame.reformat(format="yuv420p10le", dst_colorspace="BT2020") for frame in levels(rgb)]
        setup = coloured(matrix, transfer, primaries)
        return write(folder / name, frames, codec, pixels="yuv420p10le", setup=setup, **options)  # type: ignore[arg-type]

    return make


def _disc(aspect: Fraction) -> list[Picture]:
    """The moving bar, squeezed so that pixels of this aspect show it as it was drawn."""
    width = round(WIDTH / aspect)
    return [frame[:, (np.arange(width) * aspect).astype(int)] for frame in pictures()]


def _hd(tagged: bool) -> Made:
    """Green of BT.709 at 720 lines."""

    def make(folder: Path) -> Path:
        green = av.VideoFrame.from_ndarray(np.full((720, 48, 3), (40, 200, 60), np.uint8), format="rgb24")
        frames = [green.reformat(format="yuv420p", dst_colorspace="ITU709") for _ in range(3)]
        return write(folder / "a.mp4", frames, "libx264", setup=coloured(1, 1, 1) if tagged else None)

    return make


def _tall(frames: list[Picture]) -> list[Picture]:
    return [np.ascontiguousarray(np.rot90(frame)) for frame in frames]


_TFF, _BFF = {"flags": "+ildct+ilme", "x264-params": "tff=1"}, {"flags": "+ildct+ilme", "x264-params": "bff=1"}
_FIELDS = Good(notes=["deinterlaced"], tolerance=0.05)

PIXELS: list[Case] = [
    Case(
        "wide pixels in mp4",
        lambda f: write(f / "a.mp4", _disc(Fraction(4, 3)), "libx264", aspect=Fraction(4, 3)),
        Good(notes=["72x64 as stored"]),
    ),
    Case(
        "wide pixels in mkv",
        lambda f: write(f / "a.mkv", _disc(Fraction(3, 2)), "libx264", aspect=Fraction(3, 2)),
        Good(notes=["64x64 as stored"]),
    ),
    Case(
        "wide pixels in ts",
        lambda f: write(f / "a.ts", _disc(Fraction(4, 3)), "libx264", aspect=Fraction(4, 3)),
        Good(notes=["72x64 as stored"]),
    ),
    Case(
        "narrow pixels in mov",
        lambda f: write(f / "a.mov", _disc(Fraction(8, 9)), "libx264", aspect=Fraction(8, 9)),
        Good(notes=["108x64 as stored"]),
    ),
    Case(
        "a quarter turn",
        lambda f: turned(write(f / "a.mp4", _tall(pictures()), "libx264"), 0, 1, -1, 0),
        Good(notes=["64x96 as stored"]),
    ),
    Case(
        "three quarters of a turn",
        lambda f: turned(write(f / "a.mov", [np.rot90(p, 3).copy() for p in pictures()], "libx264"), 0, -1, 1, 0),
        Good(notes=["64x96 as stored"]),
    ),
    Case(
        "half a turn",
        lambda f: turned(write(f / "a.mp4", [np.rot90(p, 2).copy() for p in pictures()], "libx264"), -1, 0, 0, -1),
        Good(),
    ),
    Case(
        "mirrored",
        lambda f: turned(write(f / "a.mp4", [p[:, ::-1].copy() for p in pictures()], "libx264"), -1, 0, 0, 1),
        Good(),
    ),
    Case(
        "turned, of wide pixels",
        lambda f: turned(
            write(f / "a.mp4", [np.rot90(p[::2]).copy() for p in pictures()], "libx264", aspect=Fraction(2)), 0, 1, -1, 0
        ),
        Good(notes=["32x96 as stored"], tolerance=0.05),
    ),
    Case("interlaced, top field first", lambda f: write(f / "a.mp4", woven(), "libx264", options=_TFF), _FIELDS),
    Case(
        "interlaced, bottom field first",
        lambda f: write(f / "a.mkv", woven(), "libx264", options=_BFF),
        _FIELDS,
    ),
    Case(
        "interlaced, as camcorders write", lambda f: write(f / "a.mts", woven(), "libx264", options=_TFF, muxer=M2TS), _FIELDS
    ),
    Case(
        "HLG's diffuse white",
        _hdr("a.mp4", "libx265", 9, 18, 9, [0.75] * 3),
        Colour((230, 230, 230), 3, ["tone-mapped from HLG"]),
    ),
    Case(
        "HLG's mid grey in webm",
        _hdr("a.webm", "libsvtav1", 9, 18, 9, [0.5] * 3, options=FAST),
        Colour((143, 143, 143), 4, ["tone-mapped from HLG"]),
    ),
    Case(
        "HLG, turned",
        lambda f: turned(_hdr("a.mov", "libx265", 9, 18, 9, [0.5] * 3)(f), 0, 1, -1, 0),
        Colour((143, 143, 143), 3, ["96x64 as stored", "tone-mapped from HLG"]),
    ),
    Case(
        "PQ's mid grey",
        _hdr("a.mkv", "libx265", 9, 16, 9, [0.38] * 3),
        Colour((108, 108, 108), 3, ["tone-mapped from PQ"]),
    ),
    Case(
        "PQ in AV1",
        _hdr("a.mp4", "libsvtav1", 9, 16, 9, [0.38] * 3, options=FAST),
        Colour((108, 108, 108), 4, ["tone-mapped from PQ"]),
    ),
    Case(
        "BT.2020 without HDR",
        _hdr("a.mp4", "libx265", 9, 14, 9, [0.45, 0.2, 0.2]),
        Colour((138, 29, 49), 5, ["colours converted from BT.2020"]),
    ),
    Case(
        "Display P3",
        lambda f: write(
            f / "a.mov",
            [np.full((HEIGHT, WIDTH, 3), (115, 51, 51), np.uint8)] * 3,
            "libx264rgb",
            setup=coloured(0, 1, 12),
            options={"crf": "0"},
        ),
        Colour((123, 45, 48), 3, ["colours converted from Display P3"]),
    ),
    Case("720 lines, tagged", _hd(True), Colour((40, 200, 60), 4)),
    Case("720 lines, untagged", _hd(False), Colour((40, 200, 60), 4)),
    Case(
        "transparent WebP",
        lambda f: write_webp(f / "a.webp", [np.full((HEIGHT, WIDTH, 4), (0, 0, 0, a), np.uint8) for a in range(3)]),
        Colour((255, 255, 255), 2),
    ),
]

_SMALL = pictures(COUNT, 48, 32)
_PLAIN, _DEFAULT, _COVER = Disposition(0), Disposition.default, Disposition.attached_pic
_STILL = [np.full((256, 256, 3), GROUND, np.uint8)]


def _attachment(folder: Path) -> Path:
    path = folder / "a.mkv"
    with av.open(str(path), "w", format="matroska") as file:
        stream = file.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        picture_bytes = write(folder / "cover.mov", _STILL, "mjpeg").read_bytes()
        start = picture_bytes.index(b"\xff\xd8")
        file.add_attachment("cover.jpg", "image/jpeg", picture_bytes[start : picture_bytes.index(b"\xff\xd9", start) + 2])
        for frame in pictures():
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(stream.encode())
    return path


STREAMS: list[Case] = [
    Case(
        "a preview before the default",
        lambda f: write_streams(f / "a.mp4", [("libx264", _SMALL, _PLAIN), ("libx264", pictures(), _DEFAULT)]),
        Good(),
    ),
    Case(
        "a preview before, neither default",
        lambda f: write_streams(f / "a.mkv", [("libx264", _SMALL, _PLAIN), ("libx264", pictures(), _PLAIN)]),
        Good(),
    ),
    Case(
        "the default is the smaller",
        lambda f: write_streams(
            f / "a.mkv", [("libx264", pictures(), _DEFAULT), ("libx264", pictures(width=192, height=128), _PLAIN)]
        ),
        Good(),
    ),
    Case(
        "a cover before the video",
        lambda f: write_streams(f / "a.mp4", [("mjpeg", _STILL, _COVER), ("libx264", pictures(), _DEFAULT)]),
        Good(),
    ),
    Case(
        "a cover after the video",
        lambda f: write_streams(f / "a.mov", [("libx264", pictures(), _DEFAULT), ("mjpeg", _STILL, _COVER)]),
        Good(),
    ),
    Case(
        "a still before the video, called default",
        lambda f: write_streams(f / "a.mp4", [("mjpeg", _STILL, _DEFAULT), ("libx264", pictures(), _DEFAULT)]),
        Good(),
    ),
    Case("a cover attached in mkv", _attachment, Good()),
    Case("sound first", lambda f: write_streams(f / "a.mp4", [("libx264", pictures(), _DEFAULT)], sound=True), Good()),
    Case(
        "only a cover",
        lambda f: write_streams(f / "a.mp4", [("mjpeg", _STILL, _COVER)], sound=True),
        Refused("no video stream"),
    ),
    Case("only sound", lambda f: write_streams(f / "a.mp4", [], sound=True), Refused("no video stream")),
]
