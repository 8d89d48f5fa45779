"""Which tuners to start and to end. Pure decisions: nothing here waits, writes or knows of Ray.

Jobs that need the same base, number of GPUs and type of GPU form a class, and a tuner serves one class. Which job of a class
is next, `services.fair_queue` decides.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from services.fair_queue import FairQueue, Rank
from services.tuning.messages import JobClass

JobQueue = FairQueue[JobClass]


@dataclass(frozen=True)
class TunerCounts:
    """How many tuners a class has, by state."""

    starting: int = 0
    """They have not asked for a job yet."""
    idle: int = 0
    """They wait for a job."""
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


def plan(queue: JobQueue, counts: Mapping[JobClass, TunerCounts], max_tuners: int) -> Plan:
    """Return which tuners to start and to end: as many are to run as there is work for, up to `max_tuners`.

    A tuner that is still starting without work for it ends at once. An idle one ends here only where another class waits and
    all places are taken; otherwise it ends by itself after a while.
    """
    changes = Plan()
    free = max_tuners - sum(count.total for count in counts.values())
    tuners = Counter({kind: count.total for kind, count in counts.items()})
    missing: dict[JobClass, int] = {}
    idle: list[JobClass] = []
    for kind in queue.kinds() | set(counts):
        count, work = counts.get(kind, TunerCounts()), queue.eligible(kind)
        if surplus := min(count.starting, max(0, count.starting + count.idle - work)):
            changes.end_starting[kind] = surplus
        idle += [kind] * max(0, count.idle - work)
        if (more := work - count.starting - count.idle) > 0:
            missing[kind] = more
    while missing:
        kind = min(missing, key=lambda kind: _urgency(queue, kind, tuners[kind]))
        if free > 0:
            changes.start.append(kind)
            tuners[kind] += 1
            free -= 1
        elif idle:
            changes.end_idle[idle.pop()] += 1  # its place becomes free when it has ended
        else:
            break
        missing[kind] -= 1
        if not missing[kind]:
            del missing[kind]
    return changes


def gives_way(queue: JobQueue, kind: JobClass, counts: Mapping[JobClass, TunerCounts], max_tuners: int, patient: bool) -> bool:
    """Return whether a tuner that asks for work is to end instead, so that another class gets its place.

    Args:
        queue: the waiting jobs.
        kind: the tuner's class, in which it counts as busy.
        counts: all tuners.
        max_tuners: places.
        patient: the tuner has not served its class for long yet: only a higher priority takes its place.
    """
    if sum(count.total for count in counts.values()) < max_tuners:
        return False
    own = queue.first(kind)
    for other in queue.kinds() - {kind}:
        count, head = counts.get(other, TunerCounts()), queue.first(other)
        if head is None or queue.eligible(other) <= count.starting + count.idle:
            continue
        if own is None or head.priority > own.priority:
            return True
        fewer = count.total < counts.get(kind, TunerCounts()).total
        if not patient and head.priority == own.priority and fewer and queue.rank(head) < queue.rank(own):
            return True
    return False


def _urgency(queue: JobQueue, kind: JobClass, tuners: int) -> tuple[int, int, Rank]:
    """Return what classes are ordered by; those of one priority share the places evenly."""
    head = queue.first(kind)
    assert head is not None  # it has eligible jobs
    return -head.priority, tuners, queue.rank(head)
