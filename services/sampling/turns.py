"""Which videos are accepted, and whose is sampled next.

Tenants take turns as with tuning jobs, by the rules of `services.fair_queue`: the one with the fewest videos
at a sampler first, of equals the one served longest ago; then the oldest video. A base has as many places as it may have
samplers.
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
    """Lives in one event loop.

    Args:
        settings: `max_queued_videos`, the limits per tenant, and how many samplers a base may have.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._places = max(settings.sampler_min_replicas, settings.sampler_max_replicas)
        self._queue = FairQueue[str](settings.max_running_videos_per_tenant)
        self._taken: Counter[str] = Counter()
        self._called: dict[str, asyncio.Event] = {}
        self._open: Counter[str] = Counter()
        self._at_work: Counter[str] = Counter()
        self._numbers = itertools.count()

    def admit(self, tenant: str) -> None:
        """Count one more open video of the tenant, until `leave`.

        Raises:
            TooManyVideos: of the tenant.
            QueueFull: of all tenants.
        """
        settings = self._settings
        waiting, limit = self._open[tenant] - self._at_work[tenant], settings.max_queued_videos_per_tenant
        if settings.api_keys_file is not None and limit is not None and waiting >= limit:
            raise TooManyVideos(f"{waiting} videos of yours wait, {limit} may: ask for more when some have begun.")
        if self._open.total() >= settings.max_queued_videos:
            raise QueueFull(f"{settings.max_queued_videos} videos are waiting already: ask again later.")
        self.enter(tenant)

    def enter(self, tenant: str) -> None:
        """Likewise for a video that was accepted before."""
        self._open[tenant] += 1

    def leave(self, tenant: str) -> None:
        """One open video less."""
        self._open[tenant] -= 1

    @asynccontextmanager
    async def turn(self, tenant: str, base: str) -> AsyncIterator[None]:
        """Wait until it is the tenant's turn at a sampler of the base; the place is its during the block."""
        name = str(next(self._numbers))
        called = self._called[name] = asyncio.Event()
        self._queue.add(Entry(name, base, tenant, 0, time.monotonic()))
        self._call()
        try:
            await called.wait()
            self._at_work[tenant] += 1
            try:
                yield
            finally:
                self._at_work[tenant] -= 1
        finally:
            del self._called[name]
            if called.is_set():
                self._taken[base] -= 1
            self._queue.remove(name)
            self._queue.release(name)
            self._call()

    def _call(self) -> None:
        """Give every free place to whoever is next."""
        for base in self._queue.kinds():
            while self._taken[base] < self._places and (chosen := self._queue.take(base)) is not None:
                self._taken[base] += 1
                self._called[chosen.id].set()
