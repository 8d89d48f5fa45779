"""The scheduler's work besides serving jobs: metrics, and the removal of old jobs and videos."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Iterable

from registry.objects import ObjectStore
from registry.removal import Removal
from services import metrics
from services.settings import Settings
from services.tuning.scheduler.open_jobs import OpenJob, RunWriter
from services.tuning.scheduler.tuners import Tuners
from tav.errors import TavError
from tav_client.schemas import JobStatus

log = logging.getLogger(__name__)

_SWEEP_SECONDS = 3600.0


def measure(jobs: Iterable[OpenJob], tuners: Tuners) -> None:
    """Set the metrics of jobs and tuners, once a round."""
    metrics.ROUNDS.inc()
    states: Counter[JobStatus] = Counter()
    oldest = now = time.time()
    for job in jobs:
        states[status := job.snapshot.status] += 1
        if status is JobStatus.queued:
            oldest = min(oldest, job.queued_at)
    metrics.set_states(metrics.JOBS, "status", {status.value: states[status] for status in JobStatus if not status.final})
    metrics.QUEUE_AGE.set(now - oldest)
    metrics.set_states(metrics.TUNERS, "state", tuners.states())


async def sweep(settings: Settings, writer: RunWriter) -> None:
    """Remove the jobs and videos that are older than the settings say, now and every hour."""
    day = 24 * 3600.0
    jobs, videos = settings.keep_jobs_days, settings.keep_videos_days
    removal = Removal(settings, ObjectStore(settings))
    while jobs is not None or videos is not None:
        now = time.time()
        limits = [None if days is None else now - days * day for days in (jobs, videos)]
        try:
            await writer.call(removal.sweep, *limits)
        except TavError as error:
            log.warning("nothing old can be removed now: %s", error)
        await asyncio.sleep(_SWEEP_SECONDS)
