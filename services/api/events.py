"""Server-sent events: the snapshots of a job or a video, up to the final one.

A job's snapshots come from the scheduler, a video's from the driver; while these are away, from the run.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator

from fastapi.responses import StreamingResponse

from registry.jobs import JobStore
from registry.videos import VideoStore
from services.sampling.driver import VideoDriver
from services.tuning.client import SchedulerAway, SchedulerClient
from tav.errors import TavError
from tav_client.schemas import TuningJob, Video

log = logging.getLogger(__name__)

_POLL_SECONDS = 4.0
"""One long poll; a keep-alive comment comes at least that often."""
_PERIOD_SECONDS = 0.25
_AWAY_SECONDS = 2.0
_KEEP_ALIVE = ": keep-alive\n\n"


def event_stream(events: AsyncIterator[str]) -> StreamingResponse:
    """Return a response of server-sent events, which no proxy may buffer."""
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(events, media_type="text/event-stream", headers=headers)


def event_number(last_event_id: str | None) -> int | None:
    """Return the number in `Last-Event-ID`; None where it is something else."""
    text = last_event_id or ""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


async def live_job(job: TuningJob, scheduler: SchedulerClient) -> TuningJob:
    """Return the job with the scheduler's live fields, if it is open and the scheduler answers."""
    if job.status.final:
        return job
    try:
        return await scheduler.live(job.id) or job
    except SchedulerAway as error:
        log.info("job %s is shown as its run has it: %s", job.id, error)
        return job


async def job_events(job: TuningJob, after: int | None, scheduler: SchedulerClient, jobs: JobStore) -> AsyncIterator[str]:
    """Yield a job's events up to its final snapshot.

    Args:
        job: as its run has it.
        after: the number of the last event that the client has; None begins with the job as it is now.
        scheduler: the source of new snapshots.
        jobs: the source while the scheduler is away.
    """
    if job.status.final:
        yield _event((after or 0) + 1, job)
        return
    number, sent = after or 0, None
    if after is None:
        number, sent = await _newest(job, scheduler)
        yield _event(number, sent)
    written = time.monotonic()
    replay = after is not None
    while sent is None or not sent.status.final:
        snapshots = await _newer(job.id, number, scheduler, jobs)
        if not replay:
            snapshots = snapshots[-1:]  # a client that was not away needs the newest alone
        changed = [(n, snapshot) for n, snapshot in snapshots if snapshot != sent]
        for number, sent in changed:
            yield _event(number, sent)
        if changed:
            written, replay = time.monotonic(), False
            await asyncio.sleep(_PERIOD_SECONDS)
            continue
        if snapshots:  # the same again: the scheduler does not have the job yet
            number = snapshots[-1][0]
            await asyncio.sleep(_PERIOD_SECONDS)
        if time.monotonic() - written >= _POLL_SECONDS - 1:
            yield _KEEP_ALIVE
            written = time.monotonic()


async def video_events(video: Video, after: int | None, driver: VideoDriver, videos: VideoStore) -> AsyncIterator[str]:
    """Yield a video's events up to its final snapshot.

    Args:
        video: as it is now.
        after: the number of the last event that the client has; None begins with the video as it is now.
        driver: the source of snapshots.
        videos: the source while the driver does not have the video yet.
    """
    number = after or 0
    while (snapshots := driver.snapshots(video.id)) is None:
        if video.status.final:
            yield _event(number + 1, video)
            return
        yield _KEEP_ALIVE
        await asyncio.sleep(_AWAY_SECONDS)
        video = driver.live(await asyncio.to_thread(videos.get, video.id))
    unknown = after is None or after > snapshots.last[0]
    newer = [snapshots.last] if unknown else await snapshots.after(number, 0)
    while newer or not snapshots.closed:
        for number, video in newer:
            yield _event(number, video)
        if video.status.final:
            return
        newer = await snapshots.after(number, _POLL_SECONDS)
        if not newer:
            yield _KEEP_ALIVE


def _event(number: int, snapshot: TuningJob | Video) -> str:
    name = "job" if isinstance(snapshot, TuningJob) else "video"
    return f"id: {number}\nevent: {name}\ndata: {snapshot.model_dump_json()}\n\n"


async def _newest(job: TuningJob, scheduler: SchedulerClient) -> tuple[int, TuningJob]:
    try:
        snapshots = await scheduler.events(job.id, 0, 0.0)
    except SchedulerAway:
        snapshots = []
    return snapshots[-1] if snapshots else (0, await live_job(job, scheduler))


async def _newer(job_id: str, after: int, scheduler: SchedulerClient, jobs: JobStore) -> list[tuple[int, TuningJob]]:
    """Wait for snapshots after a number. One that comes from the run has no number of its own."""
    try:
        return await scheduler.events(job_id, after, _POLL_SECONDS)
    except SchedulerAway:
        await asyncio.sleep(_AWAY_SECONDS)
    try:
        return [(after, await asyncio.to_thread(jobs.get, job_id))]
    except TavError as error:
        log.warning("job %s cannot be followed now: %s", job_id, error)
        return []
