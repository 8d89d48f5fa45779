"""The queue that is fair to tenants."""

from __future__ import annotations

import itertools
import random
from typing import Any

from services.fair_queue import Entry, FairQueue

GPUS = {"small": 1, "big": 4}
ages = itertools.count(1.0)


def entry(name: str, kind: str = "small", tenant: str = "t", priority: int = 0) -> Entry[str]:
    return Entry(name, kind, tenant, priority, next(ages), GPUS[kind])


def queue_of(*entries: Entry[str], **options: Any) -> FairQueue[str]:
    queue = FairQueue[str](**options)
    for each in entries:
        queue.add(each)
    return queue


def drained(queue: FairQueue[str], kind: str = "small", release: bool = True) -> list[str]:
    order = []
    while taken := queue.take(kind):
        order.append(taken.id)
        if release:
            queue.release(taken.id)
    return order


def test_priority_goes_before_age() -> None:
    queue = queue_of(entry("old"), entry("new"), entry("urgent", priority=5), entry("never", priority=-5))
    assert drained(queue) == ["urgent", "old", "new", "never"]


def test_tenants_take_turns_whatever_one_of_them_has_queued() -> None:
    flood = [entry(f"a{i}", tenant="a") for i in range(4)]
    queue = queue_of(*flood, entry("b0", tenant="b"), entry("b1", tenant="b"))
    assert drained(queue) == ["a0", "b0", "a1", "b1", "a2", "a3"]


def test_the_tenant_with_fewer_gpus_in_use_goes_first() -> None:
    queue = queue_of(entry("big", "big", "a"), entry("a1", tenant="a"), *(entry(f"b{i}", tenant="b") for i in range(5)))
    assert queue.take("big") is not None
    assert drained(queue, release=False) == ["b0", "b1", "b2", "b3", "a1", "b4"]


def test_a_tenant_runs_no_more_than_its_limit_and_others_go_on() -> None:
    queue = queue_of(*(entry(f"a{i}", tenant="a", priority=9) for i in range(3)), entry("b", tenant="b"), max_running=2)
    assert queue.eligible("small") == 3
    assert drained(queue, release=False) == ["a0", "a1", "b"]
    queue.release("a0")
    assert drained(queue, release=False) == ["a2"]


def test_a_job_that_is_removed_is_not_served() -> None:
    queue = queue_of(entry("first"), entry("second"))
    queue.remove("first")
    queue.remove("first")
    assert (drained(queue), len(queue), queue.kinds(), queue.queued_of("t")) == (["second"], 0, set(), 0)


def test_a_job_that_waits_again_keeps_its_age() -> None:
    first, second = entry("first"), entry("second")
    queue = queue_of(first, second)
    assert queue.take("small") == first
    queue.release("first")
    queue.add(first)
    assert drained(queue) == ["first", "second"]


def test_ten_thousand_jobs_are_served_in_exactly_the_order_that_the_rule_gives() -> None:
    draw = random.Random(7)
    jobs = [entry(str(i), "small", f"t{draw.randrange(20)}", draw.randrange(-3, 4)) for i in range(10_000)]
    queue = queue_of(*jobs)
    left: dict[tuple[int, str], list[Entry[str]]] = {}
    for job in jobs:
        left.setdefault((-job.priority, job.tenant), []).append(job)
    served: dict[str, int] = {}
    for turn in range(len(jobs)):
        level = min(key[0] for key in left)
        heads = [group[0] for (priority, _), group in left.items() if priority == level]
        expected = min(heads, key=lambda job: (served.get(job.tenant, -1), job.created_at))
        job = queue.take("small")
        assert job == expected
        queue.release(job.id)
        served[job.tenant] = turn
        group = left[level, job.tenant]
        group.pop(0)
        if not group:
            del left[level, job.tenant]
    assert queue.take("small") is None
