"""Server-sent events: a job's snapshots from the scheduler, a video's from the driver; from the run where these are away."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator

from registry.jobs import JobStore
from registry.videos import VideoStore
from services.sampling.driver import VideoDriver
from services.tuning.client import SchedulerAway, SchedulerLink
from tav.errors import TavError
from tav_client.schemas import TuningJob, Video

log = logging.getLogger(__name__)

_WAIT_SECONDS = 4.0
"""One long-poll; a comment comes at least that often."""
_PACE_SECONDS = 0.25
_AWAY_SECONDS = 2.0
_KEEP_ALIVE = ": keep-alive\n\n"


async def overlaid(job: TuningJob, scheduler: SchedulerLink) -> TuningJob:
    """The job with the scheduler's live fields, if it is open and the scheduler answers."""
    if job.status.final:
        return job
    try:
        return await scheduler.live(job.id) or job
    except SchedulerAway as error:
        log.info("Job %s is answered from its run: %s", job.id, error)
        return job


def block(number: int, snapshot: TuningJob | Video) -> str:
    """One server-sent event."""
    name = "job" if isinstance(snapshot, TuningJob) else "video"
    return f"id: {number}\nevent: {name}\ndata: {snapshot.model_dump_json()}\n\n"


def event_number(last: str | None) -> int | None:
    """What `Last-Event-ID` says; something else than a number counts as none."""
    return int(last) if last and last.isascii() and last.isdigit() and len(last) < 19 else None


async def follow(job: TuningJob, after: int | None, scheduler: SchedulerLink, jobs: JobStore) -> AsyncIterator[str]:
    """Server-sent events up to the job's final snapshot.

    Args:
        job: As its run says.
        after: Go on after this event; None begins with the job as it is now.
        scheduler: Tells what is new.
        jobs: Asked where the scheduler is away.
    """
    if job.status.final:
        yield block((after or 0) + 1, job)
        return
    number, sent = after or 0, None
    if after is None:
        number, sent = await _now(job, scheduler)
        yield block(number, sent)
    written = time.monotonic()
    replay = after is not None
    while sent is None or not sent.status.final:
        news = await _news(job.id, number, scheduler, jobs)
        if not replay:
            news = news[-1:]  # whoever follows wants the newest
        fresh = [(n, snapshot) for n, snapshot in news if snapshot != sent]
        for number, sent in fresh:
            yield block(number, sent)
        if fresh:
            written, replay = time.monotonic(), False
            await asyncio.sleep(_PACE_SECONDS)
            continue
        if news:  # the same again: the scheduler has not taken the job in yet
            number = news[-1][0]
            await asyncio.sleep(_PACE_SECONDS)
        if time.monotonic() - written >= _WAIT_SECONDS - 1:
            yield _KEEP_ALIVE
            written = time.monotonic()


async def _now(job: TuningJob, scheduler: SchedulerLink) -> tuple[int, TuningJob]:
    try:
        news = await scheduler.events(job.id, 0, 0.0)
    except SchedulerAway:
        news = []
    return news[-1] if news else (0, await overlaid(job, scheduler))


async def _news(job_id: str, after: int, scheduler: SchedulerLink, jobs: JobStore) -> list[tuple[int, TuningJob]]:
    """What is new, after some waiting. What comes from the run has no number of its own."""
    try:
        return await scheduler.events(job_id, after, _WAIT_SECONDS)
    except SchedulerAway:
        await asyncio.sleep(_AWAY_SECONDS)
    try:
        return [(after, await asyncio.to_thread(jobs.get, job_id))]
    except TavError as error:
        log.warning("Job %s cannot be followed now: %s", job_id, error)
        return []


async def follow_video(video: Video, after: int | None, driver: VideoDriver, videos: VideoStore) -> AsyncIterator[str]:
    """Server-sent events up to the video's final snapshot.

    Args:
        video: As it is now.
        after: Go on after this event; None begins with the video as it is now.
        driver: Tells what is new.
        videos: Asked where the driver has not taken the video up yet.
    """
    number = after or 0
    while (snapshots := driver.snapshots(video.id)) is None:
        if video.status.final:
            yield block(number + 1, video)
            return
        yield _KEEP_ALIVE
        await asyncio.sleep(_AWAY_SECONDS)
        video = driver.live(await asyncio.to_thread(videos.get, video.id))
    unknown = after is None or after > snapshots.last[0]
    news = [snapshots.last] if unknown else await snapshots.after(number, 0)
    while news or not snapshots.closed:
        for number, video in news:
            yield block(number, video)
        if video.status.final:
            return
        news = await snapshots.after(number, _WAIT_SECONDS)
        if not news:
            yield _KEEP_ALIVE
