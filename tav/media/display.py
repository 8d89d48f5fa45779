"""Pixels as a player shows them: the right way up, square, progressive, in BT.709's colours, and as large as is asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from av.filter import Graph
from av.sidedata.sidedata import Type
from av.video.reformatter import Colorspace
from numpy.typing import NDArray

from tav.errors import InvalidClip
from tav.media.tonemap import HDR, WIDE, to_bt709

HD_LINES = 720
"""Files that do not name their colour matrix are taken for BT.709 from so many lines on, for BT.601 below, as browsers do."""
_UNSAID = 2  # AVCOL_SPC_UNSPECIFIED


@dataclass(frozen=True)
class Turn:
    """How a stored picture is turned before it is shown: axes swapped, then mirrored."""

    swap: bool = False
    left_right: bool = False
    up_down: bool = False

    @classmethod
    def of(cls, frame: av.VideoFrame) -> Turn:
        """Read the display matrix that cameras leave in a file; to the nearest right angle."""
        data = frame.side_data.get(Type.DISPLAYMATRIX)
        if data is None:
            return cls()
        a, b, _, c, d = (int(n) for n in np.frombuffer(bytes(data), np.int32)[:5])
        if abs(b) + abs(c) > abs(a) + abs(d):
            return cls(True, c < 0, b < 0)
        return cls(False, a < 0, d < 0)

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Return the size of a picture after the turn."""
        return (height, width) if self.swap else (width, height)

    def __call__(self, picture: NDArray[np.generic]) -> NDArray[np.generic]:
        """Turn `[H, W, 3]`."""
        turned = picture.transpose(1, 0, 2) if self.swap else picture
        return np.ascontiguousarray(turned[:: -1 if self.up_down else 1, :: -1 if self.left_right else 1])


def shown_size(frame: av.VideoFrame, pixel_aspect: Fraction) -> tuple[int, int]:
    """Return width and height as shown, in square pixels."""
    return Turn.of(frame).size(round(frame.width * pixel_aspect), frame.height)


def colour_notes(frame: av.VideoFrame) -> list[str]:
    """Say what `cover` does to a frame's colours."""
    if kind := HDR.get(frame.color_trc):
        return [f"tone-mapped from {kind}"]
    if wide := WIDE.get(frame.color_primaries):
        return [f"colours converted from {wide}"]
    return []


def deinterlaced(frames: Iterable[av.VideoFrame]) -> Iterator[av.VideoFrame]:
    """Deinterlace the frames that the file calls interlaced (FFmpeg's bwdif); as many frames come out."""
    graph: Graph | None = None
    for frame in frames:
        if graph is None:
            graph = Graph()
            source = graph.add_buffer(
                width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base or Fraction(1, 1000)
            )
            bwdif = graph.add("bwdif", "mode=send_frame:parity=auto:deint=interlaced")
            graph.link_nodes(source, bwdif, graph.add("buffersink")).configure()
        graph.push(frame)
        yield from _pulled(graph)
    if graph is not None:
        graph.push(None)
        yield from _pulled(graph)


def _pulled(graph: Graph) -> Iterator[av.VideoFrame]:
    while True:
        try:
            yield graph.vpull()
        except (av.BlockingIOError, av.EOFError):  # it wants another frame, or has given all
            return


def cover(frame: av.VideoFrame, size: tuple[int, int], pixel_aspect: Fraction = Fraction(1)) -> NDArray[np.uint8]:
    """Resize a frame as shown to cover `size` (width, height), cropped at the centre: uint8 `[height, width, 3]`.

    Raises:
        InvalidClip: its colours are of no kind that can be converted.
    """
    try:
        return _cover(frame, size, pixel_aspect)
    except av.FFmpegError as error:
        raise InvalidClip("the clip's colours cannot be converted: re-encode it, e.g. with ffmpeg -pix_fmt yuv420p") from error


def _cover(frame: av.VideoFrame, size: tuple[int, int], pixel_aspect: Fraction) -> NDArray[np.uint8]:
    transfer, primaries = frame.color_trc, frame.color_primaries
    mapped = transfer in HDR or primaries in WIDE
    pixels = "rgb48le" if mapped else "rgb24"
    unsaid = frame.colorspace == _UNSAID and not frame.format.is_rgb and frame.height >= HD_LINES
    matrix = Colorspace.ITU709 if unsaid else None
    turn = Turn.of(frame)
    if turn != Turn():  # phones store portrait clips as landscape with a turn
        upright = turn(frame.to_ndarray(format=pixels, src_colorspace=matrix))
        frame, matrix = av.VideoFrame.from_ndarray(upright, format=pixels), None
        pixel_aspect = 1 / pixel_aspect if turn.swap else pixel_aspect
    width, height = size
    across = float(frame.width * pixel_aspect)
    scale = max(width / across, height / frame.height)
    scaled_width, scaled_height = max(width, round(across * scale)), max(height, round(frame.height * scale))
    picture = frame.reformat(
        scaled_width,
        scaled_height,
        format=pixels,
        interpolation="AREA" if scale < 1 else "BICUBIC",
        src_colorspace=matrix,
    ).to_ndarray()
    left, top = (scaled_width - width) // 2, (scaled_height - height) // 2
    cropped = np.ascontiguousarray(picture[top : top + height, left : left + width])
    return to_bt709(cropped, transfer, primaries) if mapped else cropped
