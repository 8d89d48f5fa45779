"""Which videos are accepted, and whose is sampled next.

Tenants take turns by the rules of `services.fair_queue`, as with tuning jobs: first the tenant with the fewest videos at
samplers, among equals the one served longest ago; then the oldest video. A base has a slot for every sampler it may have.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.fair_queue import Entry, FairQueue
from services.sampling.errors import QueueFull, TooManyVideos
from services.settings import Settings


class Turns:
    """Counts the open videos and gives out the samplers' slots. Lives in one event loop.

    Args:
        settings: `max_queued_videos`, the limits per tenant, and how many samplers a base may have.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._slots = max(settings.sampler_min_replicas, settings.sampler_max_replicas)
        self._queue = FairQueue[str](settings.max_running_videos_per_tenant)
        self._used_slots: Counter[str] = Counter()
        self._turn_events: dict[str, asyncio.Event] = {}
        self._open: Counter[str] = Counter()
        self._running: Counter[str] = Counter()
        self._ids = map(str, itertools.count())

    def admit(self, tenant: str) -> None:
        """Count one more open video of the tenant, until `leave`.

        Raises:
            TooManyVideos: the tenant has as many waiting videos as it may have.
            QueueFull: all tenants together have.
        """
        settings = self._settings
        waiting, limit = self._open[tenant] - self._running[tenant], settings.max_queued_videos_per_tenant
        if settings.api_keys_file is not None and limit is not None and waiting >= limit:
            raise TooManyVideos(f"{waiting} videos of yours wait, {limit} may: ask for more when some have begun.")
        if self._open.total() >= settings.max_queued_videos:
            raise QueueFull(f"{settings.max_queued_videos} videos are waiting already: ask again later.")
        self.enter(tenant)

    def enter(self, tenant: str) -> None:
        """Count one more open video of the tenant, whatever the limits: an earlier gateway has accepted it."""
        self._open[tenant] += 1

    def leave(self, tenant: str) -> None:
        """Count one open video of the tenant less."""
        self._open[tenant] -= 1

    @asynccontextmanager
    async def turn(self, tenant: str, base: str) -> AsyncIterator[None]:
        """Wait for the tenant's turn at a sampler of the base, and hold the slot during the block."""
        entry_id = next(self._ids)
        my_turn = self._turn_events[entry_id] = asyncio.Event()
        self._queue.add(Entry(entry_id, base, tenant, 0, time.monotonic()))
        self._fill_slots()
        try:
            await my_turn.wait()
            self._running[tenant] += 1
            try:
                yield
            finally:
                self._running[tenant] -= 1
        finally:
            del self._turn_events[entry_id]
            if my_turn.is_set():
                self._used_slots[base] -= 1
            self._queue.remove(entry_id)
            self._queue.release(entry_id)
            self._fill_slots()

    def _fill_slots(self) -> None:
        for base in self._queue.kinds():
            while self._used_slots[base] < self._slots and (entry := self._queue.take(base)) is not None:
                self._used_slots[base] += 1
                self._turn_events[entry.id].set()
