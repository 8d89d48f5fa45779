"""Whether a file has all the bytes that it says it has: a download that broke off, a card pulled too early.

Decoders read what is there and stop without a word, so the containers' own sizes are looked at. A live recording
does not say; MPEG-TS says no more than how long its packets are.
"""

from __future__ import annotations

import mmap
from pathlib import Path

from tav.errors import InvalidClip

_ISO_FIRST = {b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp"}
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_TS_PACKETS = ((188, 0), (192, 4))
"""Bytes of an MPEG-TS packet, and where in it the sync byte is; the longer ones are camcorders' (m2ts)."""
_RIFF_SLACK = 8
"""Some writers count a RIFF's own header in its size."""


def check_whole(path: str | Path) -> None:
    """Check that a file is as long as its container says.

    Raises:
        InvalidClip: it is empty, cut off, or its packets are out of place.
    """
    with open(path, "rb") as file:
        if not (size := file.seek(0, 2)):
            raise InvalidClip("the clip is empty: send a video file")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            said = _said_size(data)
    if said is not None and said > size:
        raise InvalidClip(f"the clip is cut off: its container says {said} bytes, it has {size}: copy or export it again")


def is_webp(path: str | Path) -> bool:
    """Say whether a file is WebP, by its first bytes."""
    with open(path, "rb") as file:
        start = file.read(12)
    return start[:4] == b"RIFF" and start[8:] == b"WEBP"


def _said_size(data: mmap.mmap) -> int | None:
    """Return the bytes up to the end of what the container announces; None: it announces nothing."""
    if data[4:8] in _ISO_FIRST:
        return _iso(data)
    if data[:4] == _EBML:
        return _matroska(data)
    if data[:4] == b"RIFF":
        return _riff(data)
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return _gif(data)
    for length, place in _TS_PACKETS:
        if data[place : place + 4 * length : length] == 4 * b"G":
            return _transport(data, length, place)
    return None


def _iso(data: mmap.mmap) -> int:
    place = 0
    while place + 8 <= len(data):
        kind, length = data[place + 4 : place + 8], int.from_bytes(data[place : place + 4], "big")
        if length == 1:
            length = int.from_bytes(data[place + 8 : place + 16], "big")
        if length < 8 or not kind.isascii():  # 0: to the end of the file; else not a box
            break
        place += length
    return place


def _matroska(data: mmap.mmap) -> int | None:
    header = _vint(data, 4)
    if header is None:
        return None
    segment = header[0] + header[1]
    if data[segment : segment + 4] != _SEGMENT or (said := _vint(data, segment + 4)) is None:
        return None
    return said[0] + said[1]


def _vint(data: mmap.mmap, place: int) -> tuple[int, int] | None:
    """Return where an element's content begins, and its length; None: of unknown length, or not an element."""
    if place >= len(data) or not data[place]:
        return None
    width = 9 - data[place].bit_length()
    value = int.from_bytes(data[place : place + width], "big") & ((1 << 7 * width) - 1)
    return None if value == (1 << 7 * width) - 1 else (place + width, value)


def _riff(data: mmap.mmap) -> int | None:
    place = 0
    while data[place : place + 4] == b"RIFF":  # AVI beyond a gigabyte: several
        length = int.from_bytes(data[place + 4 : place + 8], "little")
        if length in (0, 0xFFFFFFFF):
            return None
        place += 8 + length
    return place - _RIFF_SLACK


def _transport(data: mmap.mmap, length: int, place: int) -> int:
    syncs = data[place::length]
    if lost := len(syncs) - syncs.count(b"G"):
        raise InvalidClip(f"the clip is damaged: {lost} of its {len(syncs)} packets are not in place: copy or record it again")
    return -(-len(data) // length) * length


def _gif(data: mmap.mmap) -> int:
    place = 13 + _table(data[10])
    while place < len(data) and data[place] != 0x3B:
        if data[place] == 0x2C:  # an image: its descriptor, its colours, the width of its codes
            place += 10 + _table(data[min(place + 9, len(data) - 1)]) + 1
        elif data[place] == 0x21:
            place += 2
        else:  # not a block: the decoder's to judge
            return 0
        while place < len(data) and data[place]:
            place += 1 + data[place]
        place += 1
    return place


def _table(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0
