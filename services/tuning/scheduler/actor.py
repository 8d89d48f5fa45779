"""The scheduler: one named, detached actor that leases queued jobs to tuners and alone changes their status.

All that it knows is in the runs, too: restarted, it reads the open runs and goes on. A job that was running then has lost its
tuner with the old scheduler, so it is queued again and resumes from its last checkpoint.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import RayError

from registry.errors import NotFound, StorageUnavailable
from registry.jobs import JobStore
from services import logs
from services.runtime import HEAD, NAMESPACE, SCHEDULER, without_addresses
from services.settings import Settings
from services.snapshots import Event
from services.tuning.messages import Beat, JobClass, Lease, Outcome, SchedulerStatus, Verdict
from services.tuning.scheduler import background
from services.tuning.scheduler.launcher import TrainLauncher
from services.tuning.scheduler.lifecycle import Lifecycle
from services.tuning.scheduler.open_jobs import OpenJob, RunWriter
from services.tuning.scheduler.policy import JobQueue
from services.tuning.scheduler.retention import measure, sweep
from services.tuning.scheduler.tuners import Launcher, Tuners
from tav_client.schemas import Failure, FailureCode, JobStatus, TuningJob

log = logging.getLogger(__name__)

_ROUND_SECONDS = 1.0
_RESCAN_SECONDS = 15.0
_RESCAN_REST = 20
"""Times as long as the last look at the runs took: where thousands of jobs come at once, it must not be MLflow's main work."""
_RESCAN_OVERLAP_SECONDS = 120.0


class Scheduler:
    """The actor's class. All methods run in one event loop.

    Args:
        settings: the service's limits.
        launcher: starts and ends tuners; None: as Ray Train runs.
    """

    def __init__(self, settings: Settings, launcher: Launcher | None = None) -> None:
        logs.start()
        self.settings = settings
        self.store = JobStore(settings)
        self.writer = RunWriter(self.store)
        self.queue = JobQueue(settings.max_running_per_tenant)
        self.tuners = Tuners(settings, self.queue, launcher or TrainLauncher(settings))
        self.lifecycle = Lifecycle(settings, self.store, self.writer, self.queue, self.tuners, self._decide)
        self.jobs = self.lifecycle.jobs
        self._deciding = False
        self._scanned_at = 0.0
        self.tasks = [asyncio.ensure_future(self._run()), asyncio.ensure_future(sweep(settings, self.writer))]

    # -- called by the gateway

    async def notify(self, job: TuningJob | None = None) -> None:
        """Take in a new job; None: look for new ones in the runs."""
        if job is None:
            await self._rescan()
        elif job.id not in self.jobs:
            self.lifecycle.add(job)

    async def cancel(self, job_id: str) -> TuningJob:
        """Cancel a job, queued or running; return it as it is then. One that has ended stays as it is."""
        job = self.jobs.get(job_id) or await self._find(job_id)
        if not job.final:
            await self.lifecycle.cancel(job)
        return job.snapshot

    async def live(self, job_id: str) -> TuningJob | None:
        """Return the job with its live fields, if it is open or ended lately."""
        job = self.jobs.get(job_id)
        return job.snapshot if job else None

    async def events(self, job_id: str, after: int, timeout_s: float) -> list[Event[TuningJob]]:
        """Return the snapshots newer than event `after`; wait up to `timeout_s` for one."""
        job = self.jobs.get(job_id)
        if job is None:
            return [(after + 1, await self.writer.call(self.store.get, job_id))]
        return await job.snapshots.after(after, timeout_s)

    async def queued(self, tenant: str) -> int:
        """Return how many jobs of a tenant wait."""
        return self.queue.queued_of(tenant)

    async def status(self) -> SchedulerStatus:
        """Return the numbers of jobs by status, and the tuners, for operators."""
        states = Counter(job.snapshot.status for job in self.jobs.values())
        return {"jobs": {status.value: states[status] for status in JobStatus}, "tuners": self.tuners.status()}

    # -- called by tuners

    async def lease(self, tuner_id: str) -> Lease | None:
        """Wait for the tuner's next job; None: there is none, and the tuner is to end.

        A tuner that still has a job has lost the process that worked on it: that attempt is over.
        """
        if job_id := self.tuners.job_of(tuner_id):
            await self.lifecycle.lose_attempt(job_id, tuner_id)
        waiting = self.tuners.ask(tuner_id)
        self._decide()
        job_id = await waiting
        if job_id is None:
            self._decide()
            return None
        return await self.lifecycle.start(self.jobs[job_id], tuner_id) or await self.lease(tuner_id)

    async def beat(self, job_id: str, attempt: int, beat: Beat) -> Verdict:
        """Take in the progress of a running job."""
        job = self.jobs.get(job_id)
        if job is None or not _works(job, attempt):
            return Verdict.lost
        if beat.phase != job.snapshot.phase:
            background.start(self.writer.write_phase(job))
        job.publish(
            phase=beat.phase,
            step=beat.step,
            total_steps=beat.total_steps,
            progress=beat.progress,
            loss=beat.loss,
            eta_seconds=beat.eta_seconds,
            caption=beat.caption or job.snapshot.caption,
            estimate=beat.estimate or job.snapshot.estimate,
            unread=job.snapshot.unread if beat.unread is None else beat.unread,
        )
        return Verdict.cancel if job.stop else Verdict.go_on

    async def finish(self, job_id: str, attempt: int, outcome: Outcome) -> None:
        """End an attempt, as its tuner reports."""
        job = self.jobs.get(job_id)
        if job is not None and _works(job, attempt):
            await self.lifecycle.finish(job, outcome)

    async def refuse(self, tuner_id: str, failure: Failure) -> None:
        """Fail the jobs that wait for a tuner that cannot work at all, e.g. as its base cannot be loaded."""
        if kind := self.tuners.forget(tuner_id):
            await self.lifecycle.fail_queued(kind, failure)

    # -- the loop

    async def _run(self) -> None:
        scan_at = 0.0
        while True:
            try:
                if (now := time.monotonic()) >= scan_at:
                    await self._rescan()
                    scan_at = time.monotonic() + max(_RESCAN_SECONDS, _RESCAN_REST * (time.monotonic() - now))
                self.lifecycle.end_overdue()
                self._decide()
                self.lifecycle.publish_waits(self.jobs.values())
                measure(self.jobs.values(), self.tuners)
            except StorageUnavailable as error:
                log.warning("cannot read the runs, trying again: %s", error)
            except Exception:  # without this loop no job would be served any more
                log.exception("the scheduler's round broke off, trying again")
            await asyncio.sleep(_ROUND_SECONDS)

    async def _rescan(self) -> None:
        """Take in the open runs that are not known yet, first all and later the recent ones; cancel those that were deleted."""
        now = time.time()
        for job in await self.writer.call(self.store.open, max(0.0, self._scanned_at - _RESCAN_OVERLAP_SECONDS)):
            if job.id not in self.jobs:
                self.lifecycle.add(job)
        self._scanned_at = now
        for job_id in await self.writer.call(self.store.deleted):
            if job_id in self.jobs:
                background.start(self.cancel(job_id))
            else:
                with suppress(NotFound):  # deleted for good
                    await self.writer.call(self.store.cancel, job_id)  # restored, it is not to begin again

    async def _find(self, job_id: str) -> OpenJob:
        """Read a job that is not known from its run."""
        job = await self.writer.call(self.store.get, job_id)
        if known := self.jobs.get(job_id):
            return known
        return OpenJob(job) if job.status.final else self.lifecycle.add(job)

    def _decide(self) -> None:
        """Give out work, start and end tuners, once for all that happens in this turn of the event loop."""
        if not self._deciding:
            self._deciding = True
            asyncio.get_running_loop().call_soon(self._decide_now)

    def _decide_now(self) -> None:
        self._deciding = False
        for tuner_id, job_id in self.tuners.assign():
            self.jobs[job_id].tuner = tuner_id
        for tuner_id, kind, end in self.tuners.adapt():
            background.start(self._watch(tuner_id, kind, end))

    async def _watch(self, tuner_id: str, kind: JobClass, end: Awaitable[None]) -> None:
        """Wait for the tuner's end; its job is queued again then."""
        reason = None
        try:
            await end
        except RayError as error:
            reason = str(error).strip().splitlines()[-1]
            log.warning("%s ended: %s", tuner_id, reason)
        if job_id := self.tuners.job_of(tuner_id):
            await self.lifecycle.lose_attempt(job_id, tuner_id)
        failed = self.tuners.remove(tuner_id, reason)
        if failed is not None:
            last = without_addresses(failed)[:500]
            message = f"No tuner could be started in {self.settings.max_attempts} attempts. The last one said: {last}"
            await self.lifecycle.fail_queued(kind, Failure(code=FailureCode.worker_lost, message=message))
        self._decide()


def _works(job: OpenJob, attempt: int) -> bool:
    """Return whether that attempt is the job's, and goes on."""
    return job.tuner is not None and job.snapshot.attempt == attempt and not job.final


def start_scheduler(settings: Settings, launcher: Launcher | None = None) -> Any:
    """Return the scheduler's handle; start it if it does not run. Ray must be initialised."""
    actor = ray.remote(Scheduler).options(
        name=SCHEDULER,
        namespace=NAMESPACE,
        lifetime="detached",
        get_if_exists=True,
        num_cpus=0,
        resources=HEAD,
        max_restarts=-1,
        max_task_retries=-1,
        max_concurrency=10_000,
    )
    return actor.remote(settings, launcher)
