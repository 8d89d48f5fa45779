"""The scheduling policy, without anything that runs."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import pytest

from services.fair_queue import Entry
from services.settings import Settings
from services.tuning.messages import JobClass
from services.tuning.scheduler.policy import JobQueue, TunerCounts, gives_way, plan
from services.tuning.scheduler.tuners import Tuners

A, B, BIG = JobClass("a"), JobClass("b"), JobClass("a", gpus=4, gpu_type="A100")
ages = itertools.count(1.0)


def entry(name: str, kind: JobClass = A, tenant: str = "t", priority: int = 0) -> Entry[JobClass]:
    return Entry(name, kind, tenant, priority, next(ages), kind.gpus)


def queue_of(*jobs: Entry[JobClass], **options: Any) -> JobQueue:
    queue = JobQueue(**options)
    for job in jobs:
        queue.add(job)
    return queue


def drained(queue: JobQueue, kind: JobClass = A, release: bool = True) -> list[str]:
    order = []
    while job := queue.take(kind):
        order.append(job.id)
        if release:
            queue.release(job.id)
    return order


def test_tuners_are_started_for_the_work_there_is_and_no_more_than_allowed() -> None:
    queue = queue_of(*(entry(str(i)) for i in range(3)))
    assert plan(queue, {}, 8).start == [A, A, A]
    assert plan(queue, {A: TunerCounts(starting=1, idle=1, busy=1)}, 8).start == [A]
    assert plan(queue, {A: TunerCounts(busy=7)}, 8).start == [A]
    assert plan(queue, {A: TunerCounts(busy=8)}, 8).start == []


def test_classes_share_the_places_and_the_higher_priority_comes_first() -> None:
    queue = queue_of(*(entry(f"a{i}") for i in range(9)), *(entry(f"b{i}", B) for i in range(9)))
    assert Counter(plan(queue, {}, 4).start) == {A: 2, B: 2}
    queue.add(entry("urgent", BIG, priority=1))
    assert plan(queue, {}, 1).start == [BIG]


def test_a_tuner_that_starts_without_work_ends_at_once_and_one_that_idles_is_left_alone() -> None:
    changes = plan(JobQueue(), {A: TunerCounts(starting=2, idle=1)}, 4)
    assert (changes.end_starting, changes.end_idle, changes.start) == ({A: 2}, {}, [])


def test_an_idle_tuner_makes_place_for_a_class_that_waits() -> None:
    queue = queue_of(entry("b", B))
    changes = plan(queue, {A: TunerCounts(idle=1, busy=1)}, 2)
    assert (changes.end_idle, changes.start) == ({A: 1}, [])
    assert plan(queue, {A: TunerCounts(busy=1)}, 2).start == [B]


def test_no_tuner_is_started_for_jobs_that_their_tenants_limit_holds_back() -> None:
    queue = queue_of(*(entry(f"{i}") for i in range(5)), max_running=2)
    assert plan(queue, {}, 8).start == [A, A]
    drained(queue, release=False)
    assert plan(queue, {A: TunerCounts(busy=2)}, 8).start == []


@pytest.mark.parametrize(
    ("other", "patient", "expected"),
    [
        (entry("urgent", B, "u", priority=1), True, True),
        (entry("equal", B, "u"), True, False),
        (entry("equal", B, "u"), False, True),
        (entry("less", B, "u", priority=-1), False, False),
    ],
)
def test_a_busy_class_gives_way_to_a_higher_priority_at_once_and_to_its_equal_in_time(
    other: Entry, patient: bool, expected: bool
) -> None:
    queue = queue_of(entry("running"), entry("next"), other)
    queue.take(A)
    counts = {A: TunerCounts(busy=1)}
    assert gives_way(queue, A, counts, 1, patient) is expected
    assert not gives_way(queue, A, counts, 2, patient)


class NoTuners:
    """Starts nothing."""

    def launch(self, tuner_id: str, kind: JobClass) -> Any:
        return None

    def end(self, tuner_id: str) -> None:
        pass


def test_hundreds_of_tuners_beat_less_often_than_a_few() -> None:
    few, many = (Tuners(Settings(max_tuners=n), queue_of(*map(entry, map(str, range(n)))), NoTuners()) for n in (3, 400))
    assert len(list(few.adapt())) == 3
    assert few.beat_seconds() == 0.5
    assert len(list(many.adapt())) == 400
    assert many.beat_seconds() == 2.0
