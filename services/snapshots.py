"""A job's snapshots, numbered, and those who wait for the next one."""

from __future__ import annotations

import asyncio
import time

from tav_client.schemas import TuningJob

_KEPT = 200
_KEPT_OF_ENDED = 20

Event = tuple[int, TuningJob]


class History:
    """Numbers are UNIX milliseconds, moved on where two snapshots share one: they grow across a scheduler's restarts too."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._waiting: set[asyncio.Future[None]] = set()

    def publish(self, job: TuningJob) -> None:
        """A new snapshot."""
        last = self._events[-1][0] if self._events else 0
        self._events.append((max(last + 1, time.time_ns() // 1_000_000), job))
        del self._events[: -_KEPT_OF_ENDED if job.status.final else -_KEPT]
        for future in self._waiting:
            if not future.done():
                future.set_result(None)

    async def after(self, number: int, timeout_s: float) -> list[Event]:
        """Snapshots newer than that; waits for one. A number that cannot have been given counts as none."""
        if self._events and number > self._events[-1][0]:
            number = 0
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while True:
            if news := [event for event in self._events if event[0] > number]:
                return news
            future: asyncio.Future[None] = loop.create_future()
            self._waiting.add(future)
            try:
                await asyncio.wait_for(future, deadline - loop.time())
            except TimeoutError:
                return []
            finally:
                self._waiting.discard(future)
