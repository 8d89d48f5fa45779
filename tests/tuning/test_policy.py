"""The scheduling policy, without anything that runs."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from typing import Any

import pytest

from services.settings import Settings
from services.tuning.messages import JobClass
from services.tuning.scheduler.policy import Fleet, Queue, Waiting, gives_way, plan
from services.tuning.scheduler.tuners import Tuners

A, B, BIG = JobClass("a"), JobClass("b"), JobClass("a", gpus=4, gpu_type="A100")
ages = itertools.count(1.0)


def waiting(name: str, kind: JobClass = A, tenant: str = "t", priority: int = 0) -> Waiting:
    return Waiting(name, kind, tenant, priority, next(ages))


def queue_of(*jobs: Waiting, **options: Any) -> Queue:
    queue = Queue(**options)
    for job in jobs:
        queue.add(job)
    return queue


def drained(queue: Queue, kind: JobClass = A, release: bool = True) -> list[str]:
    order = []
    while job := queue.take(kind):
        order.append(job.id)
        if release:
            queue.release(job.id)
    return order


def test_priority_goes_before_age() -> None:
    queue = queue_of(waiting("old"), waiting("new"), waiting("urgent", priority=5), waiting("never", priority=-5))
    assert drained(queue) == ["urgent", "old", "new", "never"]


def test_tenants_take_turns_whatever_one_of_them_has_queued() -> None:
    flood = [waiting(f"a{i}", tenant="a") for i in range(4)]
    queue = queue_of(*flood, waiting("b0", tenant="b"), waiting("b1", tenant="b"))
    assert drained(queue) == ["a0", "b0", "a1", "b1", "a2", "a3"]


def test_the_tenant_with_fewer_gpus_in_use_goes_first() -> None:
    queue = queue_of(waiting("big", BIG, "a"), waiting("a1", tenant="a"), *(waiting(f"b{i}", tenant="b") for i in range(5)))
    assert queue.take(BIG) is not None
    assert drained(queue, release=False) == ["b0", "b1", "b2", "b3", "a1", "b4"]


def test_a_tenant_runs_no_more_than_its_limit_and_others_go_on() -> None:
    queue = queue_of(*(waiting(f"a{i}", tenant="a", priority=9) for i in range(3)), waiting("b", tenant="b"), max_running=2)
    assert queue.eligible(A) == 3
    assert drained(queue, release=False) == ["a0", "a1", "b"]
    queue.release("a0")
    assert drained(queue, release=False) == ["a2"]


def test_a_job_that_is_removed_is_not_served() -> None:
    queue = queue_of(waiting("first"), waiting("second"))
    queue.remove("first")
    queue.remove("first")
    assert (drained(queue), len(queue), queue.kinds(), queue.queued_of("t")) == (["second"], 0, set(), 0)


def test_a_job_that_waits_again_keeps_its_age() -> None:
    first, second = waiting("first"), waiting("second")
    queue = queue_of(first, second)
    assert queue.take(A) == first
    queue.release("first")
    queue.add(first)
    assert drained(queue) == ["first", "second"]


def test_tuners_are_started_for_the_work_there_is_and_no_more_than_allowed() -> None:
    queue = queue_of(*(waiting(str(i)) for i in range(3)))
    assert plan(queue, {}, 8).start == [A, A, A]
    assert plan(queue, {A: Fleet(starting=1, idle=1, busy=1)}, 8).start == [A]
    assert plan(queue, {A: Fleet(busy=7)}, 8).start == [A]
    assert plan(queue, {A: Fleet(busy=8)}, 8).start == []


def test_classes_share_the_places_and_the_higher_priority_comes_first() -> None:
    queue = queue_of(*(waiting(f"a{i}") for i in range(9)), *(waiting(f"b{i}", B) for i in range(9)))
    assert Counter(plan(queue, {}, 4).start) == {A: 2, B: 2}
    queue.add(waiting("urgent", BIG, priority=1))
    assert plan(queue, {}, 1).start == [BIG]


def test_a_tuner_that_starts_without_work_ends_at_once_and_one_that_idles_is_left_alone() -> None:
    made = plan(Queue(), {A: Fleet(starting=2, idle=1)}, 4)
    assert (made.end_starting, made.end_idle, made.start) == ({A: 2}, {}, [])


def test_an_idle_tuner_makes_place_for_a_class_that_waits() -> None:
    queue = queue_of(waiting("b", B))
    made = plan(queue, {A: Fleet(idle=1, busy=1)}, 2)
    assert (made.end_idle, made.start) == ({A: 1}, [])
    assert plan(queue, {A: Fleet(busy=1)}, 2).start == [B]


def test_no_tuner_is_started_for_jobs_that_their_tenants_limit_holds_back() -> None:
    queue = queue_of(*(waiting(f"{i}") for i in range(5)), max_running=2)
    assert plan(queue, {}, 8).start == [A, A]
    drained(queue, release=False)
    assert plan(queue, {A: Fleet(busy=2)}, 8).start == []


@pytest.mark.parametrize(
    ("other", "patient", "expected"),
    [
        (waiting("urgent", B, "u", priority=1), True, True),
        (waiting("equal", B, "u"), True, False),
        (waiting("equal", B, "u"), False, True),
        (waiting("less", B, "u", priority=-1), False, False),
    ],
)
def test_a_busy_class_gives_way_to_a_higher_priority_at_once_and_to_its_equal_in_time(
    other: Waiting, patient: bool, expected: bool
) -> None:
    queue = queue_of(waiting("running"), waiting("next"), other)
    queue.take(A)
    fleets = {A: Fleet(busy=1)}
    assert gives_way(queue, A, fleets, 1, patient) is expected
    assert not gives_way(queue, A, fleets, 2, patient)


def test_ten_thousand_jobs_are_served_in_exactly_the_order_that_the_rule_gives() -> None:
    draw = random.Random(7)
    jobs = [waiting(str(i), A, f"t{draw.randrange(20)}", draw.randrange(-3, 4)) for i in range(10_000)]
    queue = queue_of(*jobs)
    left: dict[tuple[int, str], list[Waiting]] = {}
    for job in jobs:
        left.setdefault((-job.priority, job.tenant), []).append(job)
    served: dict[str, int] = {}
    for turn in range(len(jobs)):
        level = min(key[0] for key in left)
        heads = [group[0] for (priority, _), group in left.items() if priority == level]
        expected = min(heads, key=lambda job: (served.get(job.tenant, -1), job.created_at))
        job = queue.take(A)
        assert job == expected
        queue.release(job.id)
        served[job.tenant] = turn
        group = left[level, job.tenant]
        group.pop(0)
        if not group:
            del left[level, job.tenant]
    assert queue.take(A) is None


class NoTuners:
    """Starts nothing."""

    def launch(self, tuner_id: str, kind: JobClass) -> Any:
        return None

    def end(self, tuner_id: str) -> None:
        pass


def test_hundreds_of_tuners_beat_less_often_than_a_few() -> None:
    few, many = (Tuners(Settings(max_tuners=n), queue_of(*map(waiting, map(str, range(n)))), NoTuners()) for n in (3, 400))
    assert len(list(few.adapt())) == 3
    assert few.beat_seconds() == 0.5
    assert len(list(many.adapt())) == 400
    assert many.beat_seconds() == 2.0
