"""Wait for what happens by itself, where nothing tells of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_PAUSE_SECONDS = 0.1


def eventually(ask: Callable[[], T], what: str | Callable[[], str] = "it did not happen", seconds: float = 60.0) -> T:
    """Ask again and again until the answer is true, and return it.

    Raises:
        AssertionError: it stayed false for so long; with `what`, or what it returns at the end.
    """
    deadline = time.monotonic() + seconds
    while not (answer := ask()):
        assert time.monotonic() < deadline, what if isinstance(what, str) else what()
        time.sleep(_PAUSE_SECONDS)
    return answer
