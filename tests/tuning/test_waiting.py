"""What a queued job says that it waits for, and what is left of one that was ended: the scheduler over real storage.

Tuners are played by the test, so that it decides when one has started.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from registry.jobs import JobStore
from registry.objects import ObjectStore
from services.settings import Settings
from services.tuning.messages import Beat, JobClass, Outcome
from services.tuning.scheduler.actor import Scheduler
from tav_client._progress import read_job
from tav_client.schemas import (
    ClipInfo,
    Failure,
    FailureCode,
    JobPhase,
    JobStatus,
    TuningJob,
    TuningJobCreate,
    WaitsFor,
)

pytestmark = pytest.mark.asyncio(loop_scope="session")  # as the fixtures, whose tasks run on


class Tuners:
    """Starts are only noted."""

    def __init__(self) -> None:
        self.started: asyncio.Queue[str] = asyncio.Queue()

    def launch(self, tuner_id: str, kind: JobClass) -> Awaitable[None]:
        self.started.put_nowait(tuner_id)
        return asyncio.get_running_loop().create_future()

    def end(self, tuner_id: str) -> None:
        pass


@pytest.fixture
def settings(registry_settings: Settings) -> Settings:
    experiment = f"waiting-{uuid.uuid4().hex[:8]}"
    return registry_settings.model_copy(update={"experiment": experiment, "max_tuners": 1, "max_running_per_tenant": 1})


@pytest.fixture
async def scheduler(settings: Settings) -> AsyncIterator[Scheduler]:
    scheduler = Scheduler(settings, Tuners())
    yield scheduler
    for task in scheduler.tasks:
        task.cancel()


@pytest.fixture
def submit(settings: Settings, scheduler: Scheduler, tmp_path: Path) -> Callable[..., Awaitable[TuningJob]]:
    """Keep a job and tell the scheduler, as the gateway does."""
    objects, jobs = ObjectStore(settings), JobStore(settings)
    (tmp_path / "clip.mp4").write_bytes(b"clip")

    async def do(tenant: str) -> TuningJob:
        stored = objects.put_clip(tmp_path / "clip.mp4")
        clip = ClipInfo(uri=stored.uri, sha256=stored.sha256, width=16, height=16, num_frames=6, fps=8)
        job = jobs.create(TuningJobCreate(caption="a ball"), clip, "offline", "ball", tenant=tenant)
        await scheduler.notify(job)
        return job

    return do


async def seen(scheduler: Scheduler, job: TuningJob, holds: Callable[[TuningJob], bool]) -> TuningJob:
    """The first snapshot, as followers get them, that fulfils it."""
    after = 0
    async with asyncio.timeout(30):
        while True:
            for number, snapshot in await scheduler.events(job.id, after, 5.0):
                after = number
                if holds(snapshot):
                    return snapshot


def waiting_for(what: WaitsFor) -> Callable[[TuningJob], bool]:
    return lambda job: job.status is JobStatus.queued and job.waits_for is what


async def test_a_queued_job_says_what_it_waits_for(scheduler: Scheduler, submit: Any) -> None:
    first, second, other = await submit("alice"), await submit("alice"), await submit("bob")
    starting = await seen(scheduler, first, waiting_for(WaitsFor.tuner_start))
    assert read_job(starting).line() == "  0%  queued  a tuner is starting"
    lease = await scheduler.lease(await scheduler.tuners._launcher.started.get())
    assert lease is not None and lease.job.id == first.id and lease.job.waits_for is None
    assert read_job(await seen(scheduler, second, waiting_for(WaitsFor.own_jobs))).detail.startswith("as many")
    assert read_job(await seen(scheduler, other, waiting_for(WaitsFor.free_tuner))).detail == "all tuners are busy"
    away = Failure(code=FailureCode.storage_unavailable, message="S3 does not answer.")
    await scheduler.finish(first.id, 1, Outcome(failure=away, retry=True))
    assert (await seen(scheduler, first, waiting_for(WaitsFor.pause))).attempt == 1


@pytest.mark.parametrize("how", ["cancelled", "failed"])
async def test_a_job_that_was_ended_keeps_how_far_it_came(
    scheduler: Scheduler, settings: Settings, submit: Any, how: str
) -> None:
    job = await submit("alice")
    await scheduler.lease(await scheduler.tuners._launcher.started.get())
    await scheduler.beat(job.id, 1, Beat(JobPhase.tuning, 61, 150, 0.31, 0.14, 52.0))
    if how == "cancelled":
        await scheduler.cancel(job.id)
        await scheduler.finish(job.id, 1, Outcome())
    else:
        await scheduler.finish(job.id, 1, Outcome(failure=Failure(code=FailureCode.nan_loss, message="Lower the rate.")))
    ended = await seen(scheduler, job, lambda job: job.status.final)
    for shown in (ended, JobStore(settings).get(job.id)):  # and after the scheduler has forgotten it
        assert shown.status.value == how
        assert (shown.phase, shown.step, shown.total_steps, shown.progress) == (JobPhase.tuning, 61, 150, 0.31)
        assert shown.eta_seconds is None and shown.waits_for is None
    assert read_job(ended).line().startswith(f" 31%  {how}  in tuning 61/150")


async def test_a_job_that_is_cancelled_while_it_waits_has_come_nowhere(
    scheduler: Scheduler, settings: Settings, submit: Any
) -> None:
    job = await submit("alice")
    assert (await scheduler.cancel(job.id)).status is JobStatus.cancelled
    stored = JobStore(settings).get(job.id)
    assert (stored.status, stored.phase, stored.progress, stored.waits_for) == (JobStatus.cancelled, None, 0.0, None)
