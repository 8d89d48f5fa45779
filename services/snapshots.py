"""Numbered snapshots of a job or a video, in memory, for the clients that follow it."""

from __future__ import annotations

import asyncio
import time
from typing import Generic, TypeVar

from tav_client.schemas import TuningJob, Video

T = TypeVar("T", TuningJob, Video)

Event = tuple[int, T]
"""A snapshot after its number."""


class Snapshots(Generic[T]):
    """The newest snapshots of one job or video, oldest first. Lives in one event loop.

    Numbers begin at the time of day in milliseconds and are consecutive. So they grow across a restart of the process too: a
    client that followed the old process's numbers gets all of the new one's.

    Args:
        first: the job or video as it is now.
        limit: snapshots to keep; older ones are dropped.
    """

    def __init__(self, first: T, limit: int) -> None:
        self._limit = limit
        self._events: list[Event[T]] = [(time.time_ns() // 1_000_000, first)]
        self._changed = asyncio.Event()
        self.closed = False
        """No snapshot follows: the video has ended, or the process is about to."""

    @property
    def last(self) -> Event[T]:
        """The newest snapshot and its number."""
        return self._events[-1]

    @property
    def newest(self) -> T:
        """The job or video as it is now."""
        return self._events[-1][1]

    def publish(self, snapshot: T) -> None:
        """Add a snapshot and wake the waiting followers."""
        self._events.append((self._events[-1][0] + 1, snapshot))
        self.trim(self._limit)
        self._wake()

    def change(self, **fields: object) -> None:
        """Publish the newest snapshot with these fields replaced."""
        self.publish(self.newest.model_copy(update=fields))

    def trim(self, limit: int) -> None:
        """Drop all but the newest `limit` snapshots."""
        del self._events[:-limit]

    def close(self) -> None:
        """Wake the waiting followers; nothing follows."""
        self.closed = True
        self._wake()

    async def after(self, number: int, timeout_s: float) -> list[Event[T]]:
        """Return the snapshots newer than `number`; without any, wait for one up to `timeout_s`, unless closed.

        A number greater than the newest one's was never given: all snapshots count as newer.
        """
        if number > self._events[-1][0]:
            number = 0
        changed = self._changed
        if (events := self._newer(number)) or self.closed:
            return events
        try:
            async with asyncio.timeout(timeout_s):
                await changed.wait()
        except TimeoutError:
            return []
        return self._newer(number)

    def _newer(self, number: int) -> list[Event[T]]:
        return [event for event in self._events if event[0] > number]

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
