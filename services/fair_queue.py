"""Whose work is served next: a queue that is fair to tenants. Nothing here waits, writes or knows of Ray.

Higher priority goes first; then the tenant with the fewest GPUs in use, of equals the one served longest ago; then the
oldest entry. Entries of one kind can be served by the same process: a tuner, or the samplers of a base.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Generic, TypeVar

Kind = TypeVar("Kind", bound=Hashable)
Rank = tuple[int, int, int, float, str]


@dataclass(frozen=True)
class Entry(Generic[Kind]):
    """A job or video in the queue."""

    id: str
    kind: Kind
    tenant: str
    priority: int
    created_at: float
    gpus: int = 1
    """GPUs, or samplers, that it takes while it runs."""


class FairQueue(Generic[Kind]):
    """The waiting entries, and the running ones of each tenant.

    Adding, taking and removing an entry cost O(log n) in the waiting entries, plus the number of tenants that wait in its kind.

    Args:
        max_running: entries of one tenant that run at a time; None: no limit.
    """

    def __init__(self, max_running: int | None = None) -> None:
        self._max_running = max_running
        self._waiting: dict[str, Entry[Kind]] = {}
        self._heaps: dict[Kind, dict[int, dict[str, list[tuple[float, str]]]]] = defaultdict(lambda: defaultdict(dict))
        self._waiting_of: defaultdict[Kind, Counter[str]] = defaultdict(Counter)
        self._queued: Counter[str] = Counter()
        self._running: dict[str, Entry[Kind]] = {}
        self._running_of: Counter[str] = Counter()
        self._gpus_of: Counter[str] = Counter()
        self._served: dict[str, int] = {}
        self._stamps = itertools.count(1)

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, entry_id: str) -> bool:
        return entry_id in self._waiting

    def queued_of(self, tenant: str) -> int:
        """Return how many entries of a tenant wait."""
        return self._queued[tenant]

    def is_full(self, tenant: str) -> bool:
        """Return whether a tenant has as many entries running as it may."""
        return not self._room(tenant)

    def add(self, entry: Entry[Kind]) -> None:
        """Add an entry, unless it waits already."""
        if entry.id in self._waiting:
            return
        self._waiting[entry.id] = entry
        heappush(self._heaps[entry.kind][entry.priority].setdefault(entry.tenant, []), (entry.created_at, entry.id))
        self._waiting_of[entry.kind][entry.tenant] += 1
        self._queued[entry.tenant] += 1

    def remove(self, entry_id: str) -> None:
        """Remove a waiting entry, if it is there; its place in the heap goes when it comes to the top."""
        entry = self._waiting.pop(entry_id, None)
        if entry is None:
            return
        self._queued[entry.tenant] -= 1
        waiting = self._waiting_of[entry.kind]
        waiting[entry.tenant] -= 1
        if not waiting[entry.tenant]:
            del waiting[entry.tenant]
        if not waiting:
            del self._waiting_of[entry.kind]

    def take(self, kind: Kind) -> Entry[Kind] | None:
        """Remove the kind's next entry and count it as running until `release`; None where there is none."""
        entry = self.first(kind)
        if entry is not None:
            self.remove(entry.id)
            self._running[entry.id] = entry
            self._running_of[entry.tenant] += 1
            self._gpus_of[entry.tenant] += entry.gpus
            self._served[entry.tenant] = next(self._stamps)
        return entry

    def release(self, entry_id: str) -> None:
        """Count an entry as running no more."""
        entry = self._running.pop(entry_id, None)
        if entry is not None:
            self._running_of[entry.tenant] -= 1
            self._gpus_of[entry.tenant] -= entry.gpus

    def first(self, kind: Kind) -> Entry[Kind] | None:
        """Return the kind's next entry; None where none waits that its tenant may run now."""
        levels = self._heaps.get(kind, {})
        for priority in sorted(levels, reverse=True):
            best = min(self._heads(levels[priority]), key=self.rank, default=None)
            if best is not None:
                return best
            if not levels[priority]:
                del levels[priority]
        return None

    def rank(self, entry: Entry[Kind]) -> Rank:
        """Return what entries are ordered by: the lowest goes first."""
        tenant = entry.tenant
        return (-entry.priority, self._gpus_of[tenant], self._served.get(tenant, 0), entry.created_at, entry.id)

    def eligible(self, kind: Kind) -> int:
        """Return how many of the kind's entries may run now, given their tenants' limits."""
        return sum(min(count, self._room(tenant)) for tenant, count in self._waiting_of.get(kind, {}).items())

    def kinds(self) -> set[Kind]:
        """Return the kinds that entries wait in."""
        return set(self._waiting_of)

    def _room(self, tenant: str) -> int:
        return len(self._waiting) if self._max_running is None else max(0, self._max_running - self._running_of[tenant])

    def _heads(self, heaps: dict[str, list[tuple[float, str]]]) -> Iterator[Entry[Kind]]:
        for tenant in list(heaps):
            heap = heaps[tenant]
            while heap and heap[0][1] not in self._waiting:
                heappop(heap)
            if not heap:
                del heaps[tenant]
            elif self._room(tenant):
                yield self._waiting[heap[0][1]]
