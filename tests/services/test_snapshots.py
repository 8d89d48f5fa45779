"""The numbered snapshots of a job and of a video."""

from __future__ import annotations

import asyncio

import pytest

from services.snapshots import Snapshots
from tav_client.schemas import ClipInfo, JobParams, JobStatus, TuningJob, Video, VideoRequest, VideoStatus

CLIP = ClipInfo(uri="s3://tav/clips/a.mp4", sha256="a", width=8, height=8, num_frames=2, fps=8)


def a_job(step: int = 0) -> TuningJob:
    fields = {"caption": "a ball", "clip": CLIP, "base": "offline", "model": "ball", "params": JobParams()}
    return TuningJob(id="j", status=JobStatus.running, step=step, created_at=0, **fields)


def a_video(step: int = 0) -> Video:
    request = VideoRequest(prompt="a cube", model="ball/1")
    fields = {"model": "ball/1", "model_version": "ball/1", "prompt": "a cube", "request": request}
    return Video(id="v", status=VideoStatus.in_progress, step=step, created_at=0, **fields)


@pytest.fixture(params=[a_job, a_video], ids=["job", "video"])
def snapshots(request: pytest.FixtureRequest) -> Snapshots:
    return Snapshots(request.param(), limit=100)


async def steps(snapshots: Snapshots, after: int) -> list[int]:
    return [snapshot.step for _, snapshot in await snapshots.after(after, 0)]


async def test_what_came_after_a_number_is_replayed_in_order_and_numbers_are_consecutive(snapshots: Snapshots) -> None:
    for step in range(1, 5):
        snapshots.change(step=step)
    numbers = [number for number, _ in await snapshots.after(0, 0)]
    assert numbers == list(range(numbers[0], numbers[0] + 5))
    assert await steps(snapshots, numbers[2]) == [3, 4]
    assert await steps(snapshots, numbers[4]) == []
    assert snapshots.last == (numbers[4], snapshots.newest)


async def test_numbers_given_before_a_restart_are_older_than_those_after_it() -> None:
    last, _ = Snapshots(a_job(1), limit=100).last
    await asyncio.sleep(0.002)
    assert await steps(Snapshots(a_job(2), limit=100), last) == [2]


async def test_all_snapshots_are_newer_than_a_number_that_was_never_given(snapshots: Snapshots) -> None:
    assert await steps(snapshots, 2**62) == [0]


async def test_a_waiting_follower_gets_the_next_snapshot_and_nothing_when_none_comes(snapshots: Snapshots) -> None:
    waiting = asyncio.ensure_future(snapshots.after(snapshots.last[0], 30))
    await asyncio.sleep(0)
    snapshots.change(step=7)
    assert [snapshot.step for _, snapshot in await waiting] == [7]
    assert await snapshots.after(snapshots.last[0], 0.01) == []


async def test_closing_ends_the_waiting_for_a_snapshot(snapshots: Snapshots) -> None:
    waiting = asyncio.ensure_future(snapshots.after(snapshots.last[0], 30))
    await asyncio.sleep(0)
    snapshots.close()
    assert await waiting == []
    assert await snapshots.after(snapshots.last[0], 30) == []
    assert await steps(snapshots, 0) == [0]


async def test_no_more_than_the_limit_is_kept_and_trimming_leaves_the_newest(snapshots: Snapshots) -> None:
    for step in range(1, 151):
        snapshots.change(step=step)
    assert await steps(snapshots, 0) == list(range(51, 151))
    snapshots.trim(20)
    assert await steps(snapshots, 0) == list(range(131, 151))
