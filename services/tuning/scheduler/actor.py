"""The scheduler: one named, detached actor that leases queued jobs to tuners and alone changes their status.

It keeps nothing that the runs do not say: restarted, it reads the open runs and goes on. A job that was running then has
lost its tuner with the old scheduler, so it is queued again and resumes from its last checkpoint.

Who is served next is `policy`'s to say. Decisions are made at once, in one event loop, without waiting for anything; what
they change in the registry is written job by job, in order, by threads.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Any

import ray
from ray.exceptions import RayError

from registry.errors import NotFound, StorageUnavailable
from registry.jobs import REACHED, JobStore
from services import logs, metrics
from services.fair_queue import Entry
from services.runtime import HEAD, NAMESPACE, SCHEDULER, without_addresses
from services.settings import Settings
from services.snapshots import Event
from services.tuning.messages import Beat, JobClass, Lease, Outcome, SchedulerStatus, Verdict
from services.tuning.scheduler.deadlines import Limits
from services.tuning.scheduler.launcher import TrainLauncher
from services.tuning.scheduler.open_jobs import OpenJob, Registry
from services.tuning.scheduler.policy import JobQueue
from services.tuning.scheduler.retention import measure, sweep
from services.tuning.scheduler.tuners import Launcher, Tuners
from tav_client.schemas import Failure, FailureCode, JobPhase, JobStatus, TuningJob, WaitsFor

log = logging.getLogger(__name__)

_TICK_SECONDS = 1.0
_RESCAN_SECONDS = 15.0
_RESCAN_REST = 20
"""Times as long as the last look at the runs took: where thousands of jobs come at once, it must not be MLflow's main work."""
_RESCAN_OVERLAP_SECONDS = 120.0
_KEPT_ENDED_JOBS = 1000


class Scheduler:
    """See the module's text. Methods are the actor's; all run in one event loop.

    Args:
        settings: The limits are in it.
        launcher: Starts and ends tuners; None: Ray Train runs.
    """

    def __init__(self, settings: Settings, launcher: Launcher | None = None) -> None:
        logs.start()
        self.settings = settings
        self.store = JobStore(settings)
        self.registry = Registry(self.store)
        self.limits = Limits(settings)
        self.queue = JobQueue(settings.max_running_per_tenant)
        self.tuners = Tuners(settings, self.queue, launcher or TrainLauncher(settings))
        self.jobs: dict[str, OpenJob] = {}
        self.ended: deque[str] = deque()
        self.deciding = False
        self.read_until = 0.0
        self.loop_task = asyncio.ensure_future(self._run())
        self.sweeping = asyncio.ensure_future(sweep(settings, self.registry))

    # -- asked by the gateway

    async def notify(self, job: TuningJob | None = None) -> None:
        """A job has been added; left out, look at the runs."""
        if job is None:
            await self._rescan()
        elif job.id not in self.jobs:
            self._take_in(job)

    async def cancel(self, job_id: str) -> TuningJob:
        """Cancel a job, queued or running; one that has ended is given back as it is."""
        job = self.jobs.get(job_id) or await self._adopt(job_id)
        if job.final:
            return job.snapshot
        job.stop = True
        self.queue.remove(job_id)
        async with job.writing:  # what is being written about it now comes first
            if job.tuner is None and not job.final:
                self.queue.remove(job_id)
                await self._end(job, JobStatus.cancelled, self.store.cancel)
            elif not job.final and not job.snapshot.cancel_requested:
                self._end_if_deaf(job)
                await self.registry.write(job, self.store.request_cancel)
                job.publish(cancel_requested=True)
        return job.snapshot

    async def live(self, job_id: str) -> TuningJob | None:
        """The job with its live fields, if it is open or ended lately."""
        job = self.jobs.get(job_id)
        return job.snapshot if job else None

    async def events(self, job_id: str, after: int, timeout_s: float) -> list[Event[TuningJob]]:
        """Snapshots newer than event `after`; waits up to `timeout_s` for one."""
        job = self.jobs.get(job_id)
        if job is None:
            return [(after + 1, await self.registry.call(self.store.get, job_id))]
        return await job.snapshots.after(after, timeout_s)

    async def queued(self, tenant: str) -> int:
        """How many jobs of a tenant wait."""
        return self.queue.queued_of(tenant)

    async def status(self) -> SchedulerStatus:
        """Return the numbers of jobs by status, and the tuners, for operators."""
        states = Counter(job.snapshot.status for job in self.jobs.values())
        return {"jobs": {status.value: states[status] for status in JobStatus}, "tuners": self.tuners.status()}

    # -- asked by tuners

    async def lease(self, tuner_id: str) -> Lease | None:
        """The next job for a tuner; waits until there is one. None: end, there is no work for you.

        A tuner that still holds a job has lost the process that worked on it: that attempt is over.
        """
        if held := self.tuners.holds(tuner_id):
            await self._attempt_lost(held, tuner_id)
        waiting = self.tuners.ask(tuner_id)
        self._decide()
        job_id = await waiting
        if job_id is None:
            self._decide()
            return None
        return await self._start(self.jobs[job_id], tuner_id) or await self.lease(tuner_id)

    async def beat(self, job_id: str, attempt: int, beat: Beat) -> Verdict:
        """Progress of a running job."""
        job = self.jobs.get(job_id)
        if job is None or not self._holds(job, attempt):
            return Verdict.lost
        if beat.phase != job.snapshot.phase:
            _background(self.registry.write_phase(job))
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
        """An attempt has ended by itself."""
        job = self.jobs.get(job_id)
        if job is None or not self._holds(job, attempt):
            return
        self._release(job)
        async with job.writing:
            if outcome.version is not None:
                await self._end(
                    job, JobStatus.succeeded, partial(self.store.succeed, version=outcome.version), version=outcome.version
                )
            elif outcome.handed_back:
                await self._requeue(job)
            elif job.stop or outcome.failure is None:
                await self._stopped(job)
            elif outcome.retry:
                job.to_pass += 1
                pause = min(60.0, 5.0 * 2**job.to_pass)
                await self._again(job, outcome.failure, pause)
            else:
                await self._fail(job, outcome.failure, outcome.traceback)

    async def refuse(self, tuner_id: str, failure: Failure) -> None:
        """A tuner cannot work at all, e.g. its base cannot be loaded: the jobs that wait for such a tuner fail."""
        if kind := self.tuners.forget(tuner_id):
            await self._fail_queued(kind, failure)

    # -- inside: the loop

    async def _run(self) -> None:
        scan_at = 0.0
        while True:
            try:
                if (now := time.monotonic()) >= scan_at:
                    await self._rescan()
                    scan_at = time.monotonic() + max(_RESCAN_SECONDS, _RESCAN_REST * (time.monotonic() - now))
                self._end_overdue()
                self._decide()
                self._tell_waiting(self.jobs.values())
                measure(self.jobs.values(), self.tuners)
            except StorageUnavailable as error:
                log.warning("cannot read the runs, trying again: %s", error)
            except Exception:  # without this loop no job would be served any more
                log.exception("the scheduler's round broke off, trying again")
            await asyncio.sleep(_TICK_SECONDS)

    async def _rescan(self) -> None:
        """Adopt every open run that is not known yet: all of them once, later those made lately. Deleted ones are cancelled."""
        now = time.time()
        for snapshot in await self.registry.call(self.store.open, max(0.0, self.read_until - _RESCAN_OVERLAP_SECONDS)):
            if snapshot.id not in self.jobs:
                self._take_in(snapshot)
        self.read_until = now
        for job_id in await self.registry.call(self.store.deleted):
            if job_id in self.jobs:
                _background(self.cancel(job_id))
            else:
                with suppress(NotFound):  # gone for good
                    await self.registry.call(self.store.cancel, job_id)  # restored, it is not to begin again

    async def _adopt(self, job_id: str) -> OpenJob:
        snapshot = await self.registry.call(self.store.get, job_id)
        if known := self.jobs.get(job_id):
            return known
        return OpenJob(snapshot) if snapshot.status.final else self._take_in(snapshot)

    def _take_in(self, snapshot: TuningJob) -> OpenJob:
        job = self.jobs[snapshot.id] = OpenJob(snapshot)
        if snapshot.attempt == 0:
            job.queued_at = snapshot.created_at
        job.stop = snapshot.cancel_requested
        job.announce()
        if snapshot.status == JobStatus.running or job.stop:  # its tuner went with an earlier scheduler: no fault of the job
            _background(self.registry.in_order(job, lambda: self._requeue(job)))
        else:
            self._enqueue(job)
        return job

    def _decide(self) -> None:
        """Give out work and adapt the tuners, once for all that happens in this turn of the event loop."""
        if not self.deciding:
            self.deciding = True
            asyncio.get_running_loop().call_soon(self._decide_now)

    def _decide_now(self) -> None:
        self.deciding = False
        for tuner_id, job_id in self.tuners.assign():
            self.jobs[job_id].tuner = tuner_id
        for tuner_id, kind, done in self.tuners.adapt():
            _background(self._watch(tuner_id, kind, done))

    def _tell_waiting(self, jobs: Iterable[OpenJob]) -> None:
        """Let those who follow queued jobs see what these wait for."""
        for job in jobs:
            if job.snapshot.id in self.queue and job.tuner is None:
                full = self.queue.is_full(job.snapshot.tenant)
                waits_for = WaitsFor.own_jobs if full else self.tuners.waits_for(job.kind)
                if waits_for != job.snapshot.waits_for:
                    job.publish(waits_for=waits_for)

    # -- inside: time limits

    def _end_overdue(self) -> None:
        for job_id in self.limits.due():
            job = self.jobs.get(job_id)
            if job is None or job.final or job.stop:
                continue
            failure = self.limits.exceeded(job, waits=job_id in self.queue, served=self.tuners.serve(job.kind))
            if failure is not None:
                job.stop = failure
                self.queue.remove(job_id)
                if job.tuner is None:
                    _background(self.registry.in_order(job, lambda job=job: self._stopped(job)))  # type: ignore[misc]
                else:
                    self._end_if_deaf(job)

    # -- inside: a job's way

    def _enqueue(self, job: OpenJob) -> None:
        seen = job.snapshot
        if job.final or job.stop or job.tuner is not None:
            return
        self.queue.add(Entry(seen.id, job.kind, seen.tenant, seen.priority, seen.created_at, seen.gpus))
        self.limits.waits(job)
        self._decide()
        asyncio.get_running_loop().call_soon(self._tell_waiting, [job])  # when that is decided

    async def _start(self, job: OpenJob, tuner_id: str) -> Lease | None:
        """A tuner has got the job, and may begin when that is written; None if the job is not its any more."""
        async with job.writing:
            if job.tuner != tuner_id:
                return None  # it was lost in the meantime
            if job.stop:
                self._release(job)
                await self._stopped(job)
                return None
            attempt, started_at = job.snapshot.attempt + 1, job.snapshot.started_at or time.time()
            await self.registry.write(job, partial(self.store.start, attempt=attempt))
            if job.stop:
                self._release(job)
                await self._stopped(job)
                return None
            job.written_phase = JobPhase.preparing
            now = {"attempt": attempt, "phase": job.written_phase, "started_at": started_at, "waits_for": None}
            job.publish(status=JobStatus.running, **now)
            self.limits.runs(job)
            return Lease(job.snapshot, attempt, self.tuners.beat_seconds())

    def _holds(self, job: OpenJob, attempt: int) -> bool:
        return job.tuner is not None and job.snapshot.attempt == attempt and not job.final

    def _release(self, job: OpenJob) -> None:
        self.tuners.release(job.tuner)
        job.tuner = None
        self.queue.release(job.snapshot.id)

    async def _attempt_lost(self, job_id: str, tuner_id: str) -> None:
        job = self.jobs.get(job_id)
        if job is None or job.tuner != tuner_id or job.final:
            self.tuners.release(tuner_id)
            return
        self._release(job)
        await self.registry.in_order(job, lambda: self._again(job, _LOST))

    async def _again(self, job: OpenJob, failure: Failure, pause: float = 0.0) -> None:
        """Queue a job whose attempt ended without a result, or fail it when no attempts are left."""
        if job.stop:
            await self._stopped(job)
            return
        attempt, excused = job.snapshot.attempt, job.snapshot.excused_attempts
        if attempt - excused >= self.settings.max_attempts:
            message = f"{failure.message} This was attempt {attempt - excused} of {self.settings.max_attempts}."
            await self._fail(job, Failure(code=failure.code, message=message))
            return
        metrics.ATTEMPTS_LOST.inc(tags={"code": failure.code.value})
        await self._requeue(job, pause, excused=0)

    async def _requeue(self, job: OpenJob, pause: float = 0.0, excused: int = 1) -> None:
        """Queue a job again; `excused`, its attempt does not count towards the limit."""
        excused += job.snapshot.excused_attempts
        if not job.stop:
            await self.registry.write(job, partial(self.store.requeue, attempt=job.snapshot.attempt, excused=excused))
        if job.stop:
            await self._stopped(job)
            return
        job.queued_at = time.time() + pause
        waits_for = WaitsFor.pause if pause else None
        job.publish(status=JobStatus.queued, excused_attempts=excused, **_IDLE | {"waits_for": waits_for})
        if pause:
            asyncio.get_running_loop().call_later(pause, self._enqueue, job)
        else:
            self._enqueue(job)

    async def _stopped(self, job: OpenJob) -> None:
        if isinstance(job.stop, Failure):
            await self._fail(job, job.stop)
        else:
            await self._end(job, JobStatus.cancelled, self.store.cancel)

    async def _fail(self, job: OpenJob, failure: Failure, traceback: str | None = None) -> None:
        write = partial(self.store.fail, failure=failure, traceback=traceback)
        await self._end(job, JobStatus.failed, write, error=failure)

    async def _end(self, job: OpenJob, status: JobStatus, write: Callable[..., None], **fields: Any) -> None:
        """The job's last status; `job.writing` is held."""
        if job.final:
            return
        done: dict[str, Any] = _IDLE | {"progress": 1.0}
        if status is not JobStatus.succeeded:
            reached = {name: getattr(job.snapshot, name) for name in REACHED}
            done, write = _IDLE | reached, partial(write, reached=reached)
        await self.registry.write(job, write)
        job.publish(**done | {"status": status, "finished_at": time.time(), "loss": job.snapshot.loss} | fields)
        self.ended.append(job.snapshot.id)
        while len(self.ended) > _KEPT_ENDED_JOBS:
            self.jobs.pop(self.ended.popleft(), None)
        self._decide()

    async def _fail_queued(self, kind: JobClass, failure: Failure) -> None:
        for job in list(self.jobs.values()):
            if job.snapshot.id in self.queue and job.kind == kind:
                self.queue.remove(job.snapshot.id)
                await self.registry.in_order(job, partial(self._fail, job, failure))

    # -- inside: tuners

    async def _watch(self, tuner_id: str, kind: JobClass, done: Any) -> None:
        """Until the tuner ends; whatever it held then is queued again."""
        reason = None
        try:
            await done
        except RayError as error:
            reason = str(error).strip().splitlines()[-1]
            log.warning("%s ended: %s", tuner_id, reason)
        if held := self.tuners.holds(tuner_id):
            await self._attempt_lost(held, tuner_id)
        failed = self.tuners.gone(tuner_id, reason)
        if failed is not None:
            said = without_addresses(failed)[:500]
            message = f"No tuner could be started in {self.settings.max_attempts} attempts. The last one said: {said}"
            await self._fail_queued(kind, Failure(code=FailureCode.worker_lost, message=message))
        self._decide()

    def _end_if_deaf(self, job: OpenJob) -> None:
        """A job that shall stop, but whose tuner does not answer in time, loses its tuner, and so frees its resources."""
        tuner_id, attempt = job.tuner, job.snapshot.attempt

        def look() -> None:
            if tuner_id is not None and job.tuner == tuner_id and job.snapshot.attempt == attempt:
                log.warning("%s did not stop job %s in time: ending it", tuner_id, job.snapshot.id)
                self.tuners.kill(tuner_id)

        asyncio.get_running_loop().call_later(self.settings.cancel_grace_seconds, look)


_IDLE: dict[str, Any] = {
    "phase": None,
    "step": 0,
    "total_steps": None,
    "progress": 0.0,
    "eta_seconds": None,
    "waits_for": None,
}
_LOST = Failure(code=FailureCode.worker_lost, message="The process that worked on the job died.")
_tasks: set[asyncio.Task[Any]] = set()


def _background(work: Any) -> None:
    # asyncio keeps only weak references to tasks
    task = asyncio.ensure_future(work)
    _tasks.add(task)
    task.add_done_callback(_ended)


def _ended(task: asyncio.Task[Any]) -> None:
    _tasks.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("a task of the scheduler failed", exc_info=error)


def start_scheduler(settings: Settings, launcher: Launcher | None = None) -> Any:
    """The scheduler's handle; started if it is not running. Ray must be initialised."""
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
