"""Files that are damaged, cut, or no videos, and the sentence that each must come to; and some that look so and are not."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from tests.media.expected import (
    FAST,
    Case,
    Good,
    Made,
    Refused,
    kind,
)
from tests.media.files import (
    RATE,
    cut,
    pictures,
    spoiled,
    without,
    write,
    write_webp,
)

_CUT = Refused("cut off")
_BROKEN = Refused("damaged|breaks off after frame|cut off|not a readable")

DEFECTS: list[Case] = [
    Case("mp4 cut before its index", lambda f: cut(kind("a.mp4", "libx264")(f), 0.7), _CUT),
    Case("mp4 cut after its index", lambda f: cut(kind("a.mp4", "libx264", muxer={"movflags": "+faststart"})(f), 0.7), _CUT),
    Case("fragmented mp4, cut", lambda f: cut(kind("a.mp4", "libx264", muxer={"movflags": "frag_every_frame"})(f), 0.8), _CUT),
    Case("mov of ProRes, cut", lambda f: cut(kind("a.mov", "prores_ks")(f), 0.7), _CUT),
    Case("mkv, cut", lambda f: cut(kind("a.mkv", "libx264")(f), 0.7), _CUT),
    Case("webm, cut", lambda f: cut(kind("a.webm", "libvpx-vp9")(f), 0.7), _CUT),
    Case("avi, cut", lambda f: cut(kind("a.avi", "mjpeg")(f), 0.7), _CUT),
    Case("gif, cut", lambda f: cut(kind("a.gif", "gif")(f), 0.7), _CUT),
    Case("WebP, cut", lambda f: cut(write_webp(f / "a.webp", pictures(), lossless=True), 0.7), _CUT),
    Case("ts, cut", lambda f: cut(kind("a.ts", "libx264", options={"crf": "5"})(f), 0.63), _CUT),
    Case("ts with a hole", lambda f: without(kind("a.ts", "libx264", options={"crf": "5"})(f), 0.55, 1000), _BROKEN),
    Case("damaged h264 in mp4", lambda f: spoiled(kind("a.mp4", "libx264")(f), 0.4, after=b"mdat"), _BROKEN),
    Case("damaged h264 in mkv", lambda f: spoiled(kind("a.mkv", "libx264")(f), 0.75), _BROKEN),
    Case("damaged h264 in ts", lambda f: spoiled(kind("a.ts", "libx264", options={"crf": "5"})(f), 0.5, 400), _BROKEN),
    Case("damaged hevc", lambda f: spoiled(kind("a.mp4", "libx265")(f), 0.25), _BROKEN),
    Case("damaged AV1", lambda f: spoiled(kind("a.mp4", "libsvtav1", options=FAST)(f), 0.3, after=b"mdat"), _BROKEN),
    Case("damaged VP9", lambda f: spoiled(kind("a.webm", "libvpx-vp9")(f), 0.5, 60), _BROKEN),
    Case("damaged ProRes", lambda f: spoiled(kind("a.mov", "prores_ks")(f), 0.4), _BROKEN),
    Case("damaged MPEG-4", lambda f: spoiled(kind("a.avi", "mpeg4")(f), 0.9, 60), _BROKEN),
    Case("damaged WebP", lambda f: spoiled(write_webp(f / "a.webp", pictures(), lossless=True), 0.5, 60), _BROKEN),
    Case("one frame", lambda f: write(f / "a.mp4", pictures()[:1], "libx264"), Refused("1 frame")),
    Case("a still WebP", lambda f: write_webp(f / "a.webp", pictures()[:1]), Refused("1 frame")),
]


def _bytes(name: str, data: bytes) -> Made:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(data)
        return folder / name

    return make


def hidden(folder: Path) -> Path:
    """A webm whose header says 64x64 and whose frames are 4000x3000."""
    path = write(folder / "a.webm", [np.zeros((3000, 4000, 3), np.uint8)] * 2, "libvpx", options={"deadline": "realtime"})
    data = path.read_bytes()
    place = data.index(b"\xb0\x82\x0f\xa0\xba\x82\x0b\xb8")
    path.write_bytes(data[:place] + b"\xb0\x82\x00\x40\xba\x82\x00\x40" + data[place + 8 :])
    return path


def _resized(folder: Path, *sizes: tuple[int, int]) -> Path:
    """One stream whose pictures change their size on the way, as calls over a bad line do."""
    parts = []
    for i, (width, height) in enumerate(sizes):
        frames = pictures()[i * 6 : i * 6 + 6]
        scaled = [av.VideoFrame.from_ndarray(p, format="rgb24").reformat(width, height).to_ndarray() for p in frames]
        with av.open(str(write(folder / f"part{i}.webm", scaled, "libvpx"))) as part:
            parts += [bytes(packet) for packet in part.demux(video=0) if packet.size]
    path = folder / "a.webm"
    with av.open(str(path), "w", format="webm") as file:
        stream = file.add_stream("libvpx", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = *sizes[0], "yuv420p"
        for i, data in enumerate(parts):
            packet = av.Packet(data)
            packet.stream, packet.time_base, packet.pts, packet.dts = stream, Fraction(1, RATE), i, i
            packet.is_keyframe = i % 6 == 0
            file.mux(packet)
    return path


STRANGE: list[Case] = [
    Case("frames larger than their header", hidden, Refused("4000x3000, more than")),
    Case(
        "too many pixels",
        lambda f: write(f / "a.mp4", [np.zeros((2400, 4000, 3), np.uint8)] * 2, "mpeg4"),
        Refused("more than"),
    ),
    Case("smaller on the way", lambda f: _resized(f, (96, 64), (48, 32)), Good(notes=["the picture's size changes"])),
    Case(
        "another shape on the way", lambda f: _resized(f, (96, 64), (64, 96)), Refused("turns from 96x64 to 64x96 at frame 6")
    ),
    Case(
        "a ribbon",
        lambda f: write(f / "a.mkv", [np.zeros((16, 640, 3), np.uint8)] * 3, "mpeg4"),
        Refused("longer than 20 to 1"),
    ),
    Case(
        "pixels fifty times as wide",
        lambda f: write(f / "a.mkv", pictures(), "libx264", aspect=Fraction(50)),
        Refused("longer than 20 to 1"),
    ),
    Case("FFV1", kind("a.mkv", "ffv1"), Refused("codec 'ffv1' is not supported")),
    Case("MPEG-2", kind("a.ts", "mpeg2video"), Refused("codec 'mpeg2video' is not supported")),
    Case("Ogg", kind("a.ogg", "libvpx"), Refused("not a readable video")),
    Case("nothing", _bytes("a.mp4", b""), Refused("empty")),
    Case("text", _bytes("a.mp4", b"no video\n" * 200), Refused("not a readable video")),
    Case("a playlist", _bytes("a.mp4", b"#EXTM3U\n#EXTINF:9,\nfile:///etc/passwd\n"), Refused("not a readable video")),
    Case("a list of files", _bytes("a.mp4", b"ffconcat version 1.0\nfile /etc/passwd\n"), Refused("not a readable video")),
    Case("a page", _bytes("a.mp4", b"<!DOCTYPE html><html><body>404</body></html>" * 20), Refused("not a readable video")),
    Case("a picture", lambda f: _png(f), Refused("not a readable video")),
    Case("zeros", _bytes("a.mp4", bytes(5000)), Refused("not a readable video")),
    Case(
        "a header alone",
        _bytes("a.gif", b"GIF89a\x60\x00\x40\x00\x00\x00\x00"),
        Refused("not a readable|no video|frame|cut off"),
    ),
]


def _png(folder: Path) -> Path:
    Image.fromarray(pictures()[0]).save(folder / "a.png")
    return (folder / "a.png").rename(folder / "a.mp4")
