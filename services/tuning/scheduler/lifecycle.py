"""A job's way through its statuses: queued, running, again queued, ended. Nothing else changes a job's status."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any

from registry.jobs import REACHED, JobStore
from services import metrics
from services.fair_queue import Entry
from services.settings import Settings
from services.tuning.messages import JobClass, Lease, Outcome
from services.tuning.scheduler import background
from services.tuning.scheduler.deadlines import Deadlines
from services.tuning.scheduler.open_jobs import OpenJob, RunWriter
from services.tuning.scheduler.policy import JobQueue
from services.tuning.scheduler.tuners import Tuners
from tav_client.schemas import Failure, FailureCode, JobPhase, JobStatus, TuningJob, WaitsFor

log = logging.getLogger(__name__)

_ENDED_JOBS = 1000
"""Ended jobs to keep in memory, the latest."""
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 10.0, 60.0
"""Before a job whose attempt failed by something that may pass is queued again."""

_LOST = Failure(code=FailureCode.worker_lost, message="The process that worked on the job died.")
_IDLE: dict[str, Any] = {
    "phase": None,
    "step": 0,
    "total_steps": None,
    "progress": 0.0,
    "eta_seconds": None,
    "waits_for": None,
}
"""Fields of a job that does not run."""


class Lifecycle:
    """All jobs that the scheduler knows, and their changes of status. Lives in the scheduler's event loop.

    A change is decided at once, without waiting for anything, and then written to the job's run, change after change.

    Args:
        settings: the service's limits.
        store: the jobs' runs.
        writer: writes to them.
        queue: the jobs that wait.
        tuners: the tuners that serve them.
        decide: called when a job begins to wait or ends.
    """

    def __init__(
        self,
        settings: Settings,
        store: JobStore,
        writer: RunWriter,
        queue: JobQueue,
        tuners: Tuners,
        decide: Callable[[], None],
    ) -> None:
        self.jobs: dict[str, OpenJob] = {}
        """Open jobs and those that ended lately, by id."""
        self._settings, self._store, self._writer = settings, store, writer
        self._queue, self._tuners, self._decide = queue, tuners, decide
        self._deadlines = Deadlines(settings)
        self._ended: deque[str] = deque()

    def add(self, job: TuningJob) -> OpenJob:
        """Take in an open job, as its run says: a new one, or one of an earlier scheduler."""
        added = self.jobs[job.id] = OpenJob(job)
        if job.attempt == 0:
            added.queued_at = job.created_at
        added.stop = job.cancel_requested
        added.record_status()
        if job.status == JobStatus.running or added.stop:  # its tuner went with an earlier scheduler: no fault of the job
            background.start(_in_order(added, lambda: self._requeue(added)))
        else:
            self._enqueue(added)
        return added

    async def cancel(self, job: OpenJob) -> None:
        """End an open job that waits; let the tuner of one that runs hear of it."""
        job.stop = True
        self._queue.remove(job.snapshot.id)
        async with job.writing:  # after the changes that are being written
            if job.tuner is None and not job.final:
                self._queue.remove(job.snapshot.id)
                await self._end(job, JobStatus.cancelled, self._store.cancel)
            elif not job.final and not job.snapshot.cancel_requested:
                self._kill_if_deaf(job)
                await self._writer.write(job, self._store.request_cancel)
                job.publish(cancel_requested=True)

    async def start(self, job: OpenJob, tuner_id: str) -> Lease | None:
        """Begin an attempt of a tuner that has got the job, once that is written; None if the job is not its any more."""
        async with job.writing:
            if job.tuner != tuner_id:
                return None  # it was lost in the meantime
            if job.stop:
                self._release(job)
                await self._stop(job)
                return None
            attempt, started_at = job.snapshot.attempt + 1, job.snapshot.started_at or time.time()
            await self._writer.write(job, partial(self._store.start, attempt=attempt))
            if job.stop:
                self._release(job)
                await self._stop(job)
                return None
            job.written_phase = JobPhase.preparing
            fields = {"attempt": attempt, "phase": job.written_phase, "started_at": started_at, "waits_for": None}
            job.publish(status=JobStatus.running, **fields)
            self._deadlines.runs(job)
            return Lease(job.snapshot, attempt, self._tuners.beat_seconds())

    async def finish(self, job: OpenJob, outcome: Outcome) -> None:
        """End an attempt as its tuner says: the job ends, or is queued again."""
        self._release(job)
        async with job.writing:
            if (version := outcome.version) is not None:
                await self._end(job, JobStatus.succeeded, partial(self._store.succeed, version=version), version=version)
            elif outcome.handed_back:
                await self._requeue(job)
            elif job.stop or outcome.failure is None:
                await self._stop(job)
            elif outcome.retry:
                pause = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2**job.transient_failures)
                job.transient_failures += 1
                await self._retry(job, outcome.failure, pause)
            else:
                await self._fail(job, outcome.failure, outcome.traceback)

    async def lose_attempt(self, job_id: str, tuner_id: str) -> None:
        """End an attempt whose process has died without a word."""
        job = self.jobs.get(job_id)
        if job is None or job.tuner != tuner_id or job.final:
            self._tuners.release(tuner_id)
            return
        self._release(job)
        await _in_order(job, lambda: self._retry(job, _LOST))

    async def fail_queued(self, kind: JobClass, failure: Failure) -> None:
        """Fail all jobs of a class that wait."""
        for job in list(self.jobs.values()):
            if job.snapshot.id in self._queue and job.kind == kind:
                self._queue.remove(job.snapshot.id)
                await _in_order(job, partial(self._fail, job, failure))

    def end_overdue(self) -> None:
        """End the jobs whose deadline has passed."""
        for job_id in self._deadlines.due():
            job = self.jobs.get(job_id)
            if job is None or job.final or job.stop:
                continue
            failure = self._deadlines.exceeded(job, waits=job_id in self._queue, served=self._tuners.serves(job.kind))
            if failure is not None:
                job.stop = failure
                self._queue.remove(job_id)
                if job.tuner is None:
                    background.start(_in_order(job, partial(self._stop, job)))
                else:
                    self._kill_if_deaf(job)

    def publish_waits(self, jobs: Iterable[OpenJob]) -> None:
        """Publish what queued jobs wait for, where that has changed."""
        for job in jobs:
            if job.snapshot.id in self._queue and job.tuner is None:
                full = self._queue.is_full(job.snapshot.tenant)
                waits_for = WaitsFor.own_jobs if full else self._tuners.waits_for(job.kind)
                if waits_for != job.snapshot.waits_for:
                    job.publish(waits_for=waits_for)

    def _enqueue(self, job: OpenJob) -> None:
        if job.final or job.stop or job.tuner is not None:
            return
        fields = job.snapshot
        self._queue.add(Entry(fields.id, job.kind, fields.tenant, fields.priority, fields.created_at, fields.gpus))
        self._deadlines.waits(job)
        self._decide()
        asyncio.get_running_loop().call_soon(self.publish_waits, [job])  # after that decision

    def _release(self, job: OpenJob) -> None:
        self._tuners.release(job.tuner)
        job.tuner = None
        self._queue.release(job.snapshot.id)

    async def _retry(self, job: OpenJob, failure: Failure, pause: float = 0.0) -> None:
        """Queue a job whose attempt ended without a result, or fail it when no attempts are left."""
        if job.stop:
            await self._stop(job)
            return
        attempt, excused = job.snapshot.attempt, job.snapshot.excused_attempts
        if attempt - excused >= self._settings.max_attempts:
            message = f"{failure.message} This was attempt {attempt - excused} of {self._settings.max_attempts}."
            await self._fail(job, Failure(code=failure.code, message=message))
            return
        metrics.ATTEMPTS_LOST.inc(tags={"code": failure.code.value})
        await self._requeue(job, pause, excused=0)

    async def _requeue(self, job: OpenJob, pause: float = 0.0, excused: int = 1) -> None:
        """Queue a job again; `excused` attempts more do not count towards the limit."""
        excused += job.snapshot.excused_attempts
        if not job.stop:
            await self._writer.write(job, partial(self._store.requeue, attempt=job.snapshot.attempt, excused=excused))
        if job.stop:
            await self._stop(job)
            return
        job.queued_at = time.time() + pause
        waits_for = WaitsFor.pause if pause else None
        job.publish(status=JobStatus.queued, excused_attempts=excused, **_IDLE | {"waits_for": waits_for})
        if pause:
            asyncio.get_running_loop().call_later(pause, self._enqueue, job)
        else:
            self._enqueue(job)

    async def _stop(self, job: OpenJob) -> None:
        if isinstance(job.stop, Failure):
            await self._fail(job, job.stop)
        else:
            await self._end(job, JobStatus.cancelled, self._store.cancel)

    async def _fail(self, job: OpenJob, failure: Failure, traceback: str | None = None) -> None:
        write = partial(self._store.fail, failure=failure, traceback=traceback)
        await self._end(job, JobStatus.failed, write, error=failure)

    async def _end(self, job: OpenJob, status: JobStatus, write: Callable[..., None], **fields: Any) -> None:
        """Give a job its last status; `job.writing` is held."""
        if job.final:
            return
        progress: dict[str, Any] = {"progress": 1.0}
        if status is not JobStatus.succeeded:
            progress = {name: getattr(job.snapshot, name) for name in REACHED}
            write = partial(write, reached=progress)
        await self._writer.write(job, write)
        fields |= {"status": status, "finished_at": time.time(), "loss": job.snapshot.loss}
        job.publish(**_IDLE | progress | fields)
        self._ended.append(job.snapshot.id)
        while len(self._ended) > _ENDED_JOBS:
            self.jobs.pop(self._ended.popleft(), None)
        self._decide()

    def _kill_if_deaf(self, job: OpenJob) -> None:
        """End the tuner of a job that is to stop, and so free its resources, if it does not answer in time."""
        tuner_id, attempt = job.tuner, job.snapshot.attempt

        def look() -> None:
            if tuner_id is not None and job.tuner == tuner_id and job.snapshot.attempt == attempt:
                log.warning("%s did not stop job %s in time: ending it", tuner_id, job.snapshot.id)
                self._tuners.kill(tuner_id)

        asyncio.get_running_loop().call_later(self._settings.cancel_grace_seconds, look)


async def _in_order(job: OpenJob, change: Callable[[], Awaitable[None]]) -> None:
    """Make a change when those before it are done."""
    async with job.writing:
        await change()
