"""Who is served next, and which tuners there should be. Pure decisions: nothing here waits, writes or knows of Ray.

Order of jobs: higher priority first; then the tenant with the fewest GPUs in use, of equals the one served longest ago; then
the oldest. Jobs that need the same base, number of GPUs and type of GPU form a class, and a tuner serves one class.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from heapq import heappop, heappush

from services.tuning.messages import JobClass


@dataclass(frozen=True)
class Waiting:
    """A queued job."""

    id: str
    kind: JobClass
    tenant: str
    priority: int
    created_at: float


@dataclass(frozen=True)
class Fleet:
    """A class's tuners, counted."""

    starting: int = 0
    """Not heard of yet."""
    idle: int = 0
    """Wait for a job."""
    busy: int = 0

    @property
    def total(self) -> int:
        """All of them: each takes a place."""
        return self.starting + self.idle + self.busy


@dataclass
class Plan:
    """What to change about the tuners."""

    start: list[JobClass] = field(default_factory=list)
    end_starting: Counter[JobClass] = field(default_factory=Counter)
    end_idle: Counter[JobClass] = field(default_factory=Counter)


_Rank = tuple[int, int, int, float, str]


class Queue:
    """Waiting jobs, and what each tenant has running.

    Adding, taking and removing a job cost O(log n) in the waiting jobs, plus the number of tenants that wait in its class.

    Args:
        max_running: jobs of one tenant at a time; None: no limit.
    """

    def __init__(self, max_running: int | None = None) -> None:
        self._max_running = max_running
        self._waiting: dict[str, Waiting] = {}
        self._heaps: dict[JobClass, dict[int, dict[str, list[tuple[float, str]]]]] = defaultdict(lambda: defaultdict(dict))
        self._waiting_of: defaultdict[JobClass, Counter[str]] = defaultdict(Counter)
        self._queued: Counter[str] = Counter()
        self._running: dict[str, Waiting] = {}
        self._jobs_of: Counter[str] = Counter()
        self._gpus_of: Counter[str] = Counter()
        self._served: dict[str, int] = {}
        self._stamps = itertools.count(1)

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._waiting

    def queued_of(self, tenant: str) -> int:
        """How many jobs of a tenant wait."""
        return self._queued[tenant]

    def is_full(self, tenant: str) -> bool:
        """Whether as many of a tenant's jobs run as may."""
        return not self._room(tenant)

    def add(self, job: Waiting) -> None:
        """A job waits from now on."""
        if job.id in self._waiting:
            return
        self._waiting[job.id] = job
        heappush(self._heaps[job.kind][job.priority].setdefault(job.tenant, []), (job.created_at, job.id))
        self._waiting_of[job.kind][job.tenant] += 1
        self._queued[job.tenant] += 1

    def remove(self, job_id: str) -> None:
        """A job waits no longer; its entry is dropped when it comes to the top."""
        job = self._waiting.pop(job_id, None)
        if job is None:
            return
        self._queued[job.tenant] -= 1
        left = self._waiting_of[job.kind]
        left[job.tenant] -= 1
        if not left[job.tenant]:
            del left[job.tenant]
        if not left:
            del self._waiting_of[job.kind]

    def take(self, kind: JobClass) -> Waiting | None:
        """The class's next job, which runs from now on."""
        job = self.first(kind)
        if job is not None:
            self.remove(job.id)
            self._running[job.id] = job
            self._jobs_of[job.tenant] += 1
            self._gpus_of[job.tenant] += kind.gpus
            self._served[job.tenant] = next(self._stamps)
        return job

    def release(self, job_id: str) -> None:
        """A job runs no longer."""
        job = self._running.pop(job_id, None)
        if job is not None:
            self._jobs_of[job.tenant] -= 1
            self._gpus_of[job.tenant] -= job.kind.gpus

    def first(self, kind: JobClass) -> Waiting | None:
        """The class's next job; None where none waits that its tenant may run now."""
        levels = self._heaps.get(kind, {})
        for priority in sorted(levels, reverse=True):
            best = min(self._heads(levels[priority]), key=self.rank, default=None)
            if best is not None:
                return best
            if not levels[priority]:
                del levels[priority]
        return None

    def rank(self, job: Waiting) -> _Rank:
        """The lowest goes first."""
        tenant = job.tenant
        return (-job.priority, self._gpus_of[tenant], self._served.get(tenant, 0), job.created_at, job.id)

    def eligible(self, kind: JobClass) -> int:
        """How many of the class's jobs may run now, as their tenants' limits stand."""
        return sum(min(count, self._room(tenant)) for tenant, count in self._waiting_of.get(kind, {}).items())

    def kinds(self) -> set[JobClass]:
        """The classes that jobs wait in."""
        return set(self._waiting_of)

    def _room(self, tenant: str) -> int:
        return len(self._waiting) if self._max_running is None else max(0, self._max_running - self._jobs_of[tenant])

    def _heads(self, heaps: dict[str, list[tuple[float, str]]]) -> Iterator[Waiting]:
        for tenant in list(heaps):
            heap = heaps[tenant]
            while heap and heap[0][1] not in self._waiting:
                heappop(heap)
            if not heap:
                del heaps[tenant]
            elif self._room(tenant):
                yield self._waiting[heap[0][1]]


def plan(queue: Queue, fleets: Mapping[JobClass, Fleet], max_tuners: int) -> Plan:
    """Which tuners to start and to end: as many as there is work for, up to `max_tuners`.

    A tuner that is still starting without work for it ends at once. One that idles ends here only where another class
    waits and all places are taken; otherwise it ends by itself after a while.
    """
    made = Plan()
    free = max_tuners - sum(fleet.total for fleet in fleets.values())
    tuners = Counter({kind: fleet.total for kind, fleet in fleets.items()})
    lacking: dict[JobClass, int] = {}
    idlers: list[JobClass] = []
    for kind in queue.kinds() | set(fleets):
        fleet, work = fleets.get(kind, Fleet()), queue.eligible(kind)
        if surplus := min(fleet.starting, max(0, fleet.starting + fleet.idle - work)):
            made.end_starting[kind] = surplus
        idlers += [kind] * max(0, fleet.idle - work)
        if (more := work - fleet.starting - fleet.idle) > 0:
            lacking[kind] = more
    while lacking:
        kind = min(lacking, key=lambda kind: _urgency(queue, kind, tuners[kind]))
        if free > 0:
            made.start.append(kind)
            tuners[kind] += 1
            free -= 1
        elif idlers:
            made.end_idle[idlers.pop()] += 1  # its place is taken when it has ended
        else:
            break
        lacking[kind] -= 1
        if not lacking[kind]:
            del lacking[kind]
    return made


def gives_way(queue: Queue, kind: JobClass, fleets: Mapping[JobClass, Fleet], max_tuners: int, patient: bool) -> bool:
    """Whether a tuner of `kind` that asks for work shall end instead, to make place for another class.

    Args:
        queue: what waits.
        kind: the tuner's class; it counts as busy.
        fleets: all tuners.
        max_tuners: places.
        patient: the tuner has not served its class for long yet: only a higher priority takes its place.
    """
    if sum(fleet.total for fleet in fleets.values()) < max_tuners:
        return False
    own = queue.first(kind)
    for other in queue.kinds() - {kind}:
        fleet, head = fleets.get(other, Fleet()), queue.first(other)
        if head is None or queue.eligible(other) <= fleet.starting + fleet.idle:
            continue
        if own is None or head.priority > own.priority:
            return True
        fewer = fleet.total < fleets.get(kind, Fleet()).total
        if not patient and head.priority == own.priority and fewer and queue.rank(head) < queue.rank(own):
            return True
    return False


def _urgency(queue: Queue, kind: JobClass, tuners: int) -> tuple[int, int, _Rank]:
    """Classes of one priority share the places evenly."""
    head = queue.first(kind)
    assert head is not None  # it has eligible jobs
    return -head.priority, tuners, queue.rank(head)
