"""A job's numbered snapshots."""

from __future__ import annotations

import asyncio

from services.snapshots import History
from tav_client.schemas import ClipInfo, JobParams, JobStatus, TuningJob

CLIP = ClipInfo(uri="s3://tav/clips/a.mp4", sha256="a", width=8, height=8, num_frames=2, fps=8)


def snapshot(step: int, status: JobStatus = JobStatus.running) -> TuningJob:
    named = {"caption": "a ball", "clip": CLIP, "base": "offline", "model": "ball", "params": JobParams()}
    return TuningJob(id="j", status=status, step=step, created_at=0, **named)


async def steps(history: History, after: int) -> list[int]:
    return [job.step for _, job in await history.after(after, 0)]


async def test_what_came_after_an_event_is_replayed_in_order_and_numbers_grow() -> None:
    history = History()
    for step in range(5):
        history.publish(snapshot(step))
    numbers = [number for number, _ in await history.after(0, 0)]
    assert numbers == sorted(set(numbers))
    assert await steps(history, numbers[2]) == [3, 4]
    assert await steps(history, numbers[4]) == []


async def test_numbers_given_before_a_restart_are_older_than_those_after_it() -> None:
    before, after = History(), History()
    before.publish(snapshot(1))
    ((last, _),) = await before.after(0, 0)
    await asyncio.sleep(0.002)
    after.publish(snapshot(2))
    assert await steps(after, last) == [2]


async def test_a_number_that_was_never_given_counts_as_none() -> None:
    history = History()
    history.publish(snapshot(1))
    assert await steps(history, 2**62) == [1]


async def test_whoever_waits_hears_of_the_next_snapshot_and_of_nothing_when_none_comes() -> None:
    history = History()
    waiting = asyncio.ensure_future(history.after(0, 30))
    await asyncio.sleep(0)
    history.publish(snapshot(7))
    assert [job.step for _, job in await waiting] == [7]
    assert await history.after((await history.after(0, 0))[-1][0], 0.01) == []


async def test_of_an_ended_job_only_the_last_snapshots_are_kept() -> None:
    history = History()
    for step in range(150):
        history.publish(snapshot(step))
    assert len(await history.after(0, 0)) == 150
    history.publish(snapshot(150, JobStatus.succeeded))
    assert (await steps(history, 0))[-1] == 150 and len(await history.after(0, 0)) < 30
