"""What a file must come to: the right frames, or a sentence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.media.files import COUNT, HEIGHT, RATE, WIDTH, pictures, write

Made = Callable[[Path], Path]
"""Writes a file below a folder."""


@dataclass
class Good:
    """The bar is where its time says, the right way up."""

    size: tuple[int, int] = (WIDTH, HEIGHT)
    count: int = COUNT
    seconds: float = COUNT / RATE
    notes: list[str] = field(default_factory=list)
    shares: list[float] | None = None
    """Of four frames spread over the file; None: evenly across."""
    tolerance: float = 0.03
    upright: bool = True


@dataclass
class Colour:
    """Every frame is of this colour."""

    rgb: tuple[int, int, int]
    within: int
    notes: list[str] = field(default_factory=list)


@dataclass
class Refused:
    """A sentence that holds these words."""

    words: str


@dataclass
class Case:
    """A file and its expectation."""

    name: str
    make: Made
    expected: Good | Colour | Refused


def kind(name: str, codec: str, **options: object) -> Made:
    return lambda folder: write(folder / name, pictures(), codec, **options)  # type: ignore[arg-type]


M2TS = {"mpegts_m2ts_mode": "1"}
FAST = {"preset": "12"}
