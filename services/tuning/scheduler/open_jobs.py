"""An open job in the scheduler's memory, and the writing of its changes to its run."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from registry.errors import NotFound, StorageRefused
from registry.jobs import JobStore
from services import logs, metrics
from services.retries import pauses, retry_async
from services.snapshots import Snapshots
from services.tuning.messages import JobClass
from tav_client.schemas import Failure, JobPhase, JobStatus, TuningJob

log = logging.getLogger(__name__)
T = TypeVar("T")

_WRITES_AT_A_TIME = 16
_PHASE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 10.0
"""Between two calls of a registry that is away."""
_SNAPSHOTS, _SNAPSHOTS_ENDED = 200, 20
"""Of an open and of an ended job."""


class OpenJob:
    """A job and what the scheduler knows of it. Changes that take time are made one after the other, under `writing`."""

    def __init__(self, job: TuningJob) -> None:
        self.snapshots = Snapshots(job, _SNAPSHOTS)
        self.tuner: str | None = None
        """Id of the tuner that has the job."""
        self.stop: Failure | bool = False
        """The job is to end: True when a user cancelled it or deleted its run, a failure when a deadline has passed."""
        self.queued_at = time.time()
        self.written_phase: JobPhase | None = None
        """The phase last written to its run."""
        self.transient_failures = 0
        """Attempts that ended by something that may pass; the pause before the next one grows."""
        self.writing = asyncio.Lock()

    @property
    def snapshot(self) -> TuningJob:
        """The job as users see it."""
        return self.snapshots.newest

    @property
    def kind(self) -> JobClass:
        """Which tuners can work on it."""
        job = self.snapshot
        return JobClass(job.base, job.gpus, job.gpu_type)

    @property
    def final(self) -> bool:
        """True when the job has ended."""
        return self.snapshot.status.final

    def publish(self, **changes: Any) -> None:
        """Change fields of the job, for all who follow it."""
        before = self.snapshot.status
        self.snapshots.change(**changes)
        if self.final:
            self.snapshots.trim(_SNAPSHOTS_ENDED)
        if "status" in changes:
            self.record_status(before)

    def record_status(self, before: JobStatus | None = None) -> None:
        """Log and count the job's status.

        Args:
            before: the status that it had; None: the job is new to this scheduler.
        """
        job = self.snapshot
        code = job.error.code.value if job.error else ""
        with logs.about(**logs.about_job(job)):
            log.info("job %s is %s%s", job.id, job.status.value, f" with {code}" if code else f", attempt {job.attempt}")
        if job.status is JobStatus.running and before is JobStatus.queued:
            metrics.QUEUE_SECONDS.observe(max(0.0, time.time() - self.queued_at))
        elif job.status.final:
            metrics.JOBS_ENDED.inc(tags={"status": job.status.value, "code": code})
            if job.started_at:
                metrics.JOB_SECONDS.observe(max(0.0, time.time() - job.started_at), {"status": job.status.value})


class RunWriter:
    """Writes changes of jobs to their runs; calls of the registry block, so threads make them."""

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._threads = ThreadPoolExecutor(_WRITES_AT_A_TIME, "registry")

    async def write_phase(self, job: OpenJob) -> None:
        """Write the phase of a running job, unless it has passed in the meantime: most of a small job's do."""
        await asyncio.sleep(_PHASE_SECONDS)
        async with job.writing:
            phase = job.snapshot.phase
            if phase is not None and phase is not job.written_phase:
                job.written_phase = phase
                await self.write(job, partial(self._store.set_phase, phase=phase))

    async def write(self, job: OpenJob, write: Callable[..., None]) -> None:
        """Change the job's run, again and again while MLflow or S3 are away: no change is dropped.

        A run that a user has deleted takes no change: the job is to stop.
        """
        with logs.about(**logs.about_job(job.snapshot)):
            try:
                await retry_async(lambda: self.call(write, job.snapshot.id), pauses(_LONGEST_PAUSE_SECONDS))
            except NotFound:
                log.warning("the run of job %s was deleted while it was open", job.snapshot.id)
                job.stop = job.stop or True
            except StorageRefused as error:
                log.error("job %s goes on, but its run does not say so: %s", job.snapshot.id, error)

    async def call(self, call: Callable[..., T], *args: Any) -> T:
        """Make a blocking call in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *args)
