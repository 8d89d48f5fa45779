"""Calls of storage that are made again while MLflow or S3 are away: one policy, for threads and for event loops."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

from registry.errors import StorageUnavailable
from tav.errors import is_disk_full

log = logging.getLogger(__name__)
T = TypeVar("T")

_FIRST_PAUSE_SECONDS = 0.5


def pauses(longest: float, deadline: float = math.inf) -> Iterator[float]:
    """Yield the seconds to pause between calls: from half a second, twice as long each time, up to `longest`.

    Args:
        longest: seconds.
        deadline: by `time.monotonic`; no pause that would end later is begun.
    """
    pause = _FIRST_PAUSE_SECONDS
    while time.monotonic() + pause <= deadline:
        yield pause
        pause = min(2 * pause, longest)


def retry(call: Callable[[], T], pauses: Iterator[float], after_pause: Callable[[], None]) -> T:
    """Make a call that needs storage, or room on the disk, again and again while it fails for want of them. Blocks.

    Args:
        call: what to do.
        pauses: between two calls; when they end, the error is raised.
        after_pause: called before every further call; it may raise to end the attempts.
    """
    while True:
        try:
            return call()
        except (StorageUnavailable, OSError) as error:
            full = is_disk_full(error)
            pause = next(pauses, None)
            if pause is None or not (full or isinstance(error, StorageUnavailable)):
                raise
            log.warning("%s, trying again in %.1f s: %s", "the disk is full" if full else "storage is away", pause, error)
        time.sleep(pause)
        after_pause()


async def retry_async(call: Callable[[], Awaitable[T]], pauses: Iterator[float]) -> T:
    """Make a call of storage again and again while it is away; when the pauses end, the error is raised."""
    while True:
        try:
            return await call()
        except StorageUnavailable as error:
            pause = next(pauses, None)
            if pause is None:
                raise
            log.warning("storage is away, trying again in %.1f s: %s", pause, error)
        await asyncio.sleep(pause)
