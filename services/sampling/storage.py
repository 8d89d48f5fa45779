"""Calls of the registry from the gateway's event loop: in threads, and again for some seconds while storage is away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import islice
from typing import Any, TypeVar

from services.retries import pauses, retry_async

T = TypeVar("T")

_RETRIES, _LONGEST_PAUSE_SECONDS = 4, 5.0
"""Pauses of 0.5, 1, 2 and 4 seconds."""


async def call(function: Callable[..., T], *args: Any) -> T:
    """Call the registry in a thread.

    Raises:
        StorageUnavailable: storage is still away after the last pause.
    """
    return await retry_async(lambda: _call_once(function, *args), islice(pauses(_LONGEST_PAUSE_SECONDS), _RETRIES))


async def _call_once(function: Callable[..., T], *args: Any) -> T:
    """Call in a thread; a task that is cancelled waits for the call too, so that the next one cannot overtake it."""
    future = asyncio.ensure_future(asyncio.to_thread(function, *args))
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait({future})
        raise
