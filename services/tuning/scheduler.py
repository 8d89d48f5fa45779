"""The scheduler: one named, detached actor that leases queued jobs to tuners and alone changes their status.

It keeps nothing that the runs do not say: restarted, it reads the open runs and goes on. A job that was running then has
lost its tuner with the old scheduler, so it is queued again and resumes from its last checkpoint.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import ray
from ray.exceptions import RayError

from registry.errors import StorageUnavailable
from registry.jobs import JobStore
from services.settings import Settings
from services.tuning.lease import NAMESPACE, SCHEDULER, Beat, Lease, Outcome, Verdict
from services.tuning.tuner import TunerSupervisor
from tav_client.schemas import Failure, FailureCode, JobStatus, TuningJob

log = logging.getLogger(__name__)
T = TypeVar("T")

_RESCAN_SECONDS = 15.0
_CANCEL_GRACE_SECONDS = 60.0
_KEPT_EVENTS = 1000
_KEPT_EVENTS_OF_ENDED = 20
_KEPT_ENDED_JOBS = 1000


@dataclass
class _Job:
    """An open job as the scheduler sees it; `snapshot` is what users see."""

    snapshot: TuningJob
    tuner: str | None = None
    cancel: bool = False
    events: list[tuple[int, TuningJob]] = field(default_factory=list)


@dataclass
class _Tuner:
    base: str
    supervisor: Any
    job: str | None = None
    leased_any: bool = False


class Scheduler:
    """See the module's text. Methods are the actor's; all run in one event loop, blocking work in threads."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.store = JobStore(settings)
        self.jobs: dict[str, _Job] = {}
        self.tuners: dict[str, _Tuner] = {}
        self.failed_starts: dict[str, int] = {}
        self.changed = asyncio.Condition()
        self.wake = asyncio.Event()
        self.event_ids = itertools.count(1)
        self.lock = asyncio.Lock()  # one decision at a time about who holds what
        self.loop_task = asyncio.ensure_future(self._run())

    # -- asked by the gateway

    async def notify(self) -> None:
        """Look at the runs now: a job has been added."""
        self.wake.set()

    async def cancel(self, job_id: str) -> TuningJob:
        """Cancel a job, queued or running; one that has ended is given back as it is."""
        async with self.lock:
            job = self.jobs.get(job_id) or await self._adopt(job_id)
            if job.snapshot.status.final:
                return job.snapshot
            job.cancel = True
            if job.tuner is None:
                await self._end(job, lambda: self.store.cancel(job_id))
            else:
                _background(self._kill_if_deaf(job_id, job.tuner))
        return job.snapshot

    async def live(self, job_id: str) -> TuningJob | None:
        """The job with its live fields, if it is open or ended lately."""
        job = self.jobs.get(job_id)
        return job.snapshot if job else None

    async def events(self, job_id: str, after: int, timeout_s: float) -> list[tuple[int, TuningJob]]:
        """Snapshots newer than event `after`; waits up to `timeout_s` for one. Ids from before a restart count as 0."""
        job = self.jobs.get(job_id)
        if job is None:
            return [(1, await self._persist(self.store.get, job_id))]
        if not job.events or after > job.events[-1][0]:
            after = 0

        def news() -> list[tuple[int, TuningJob]]:
            return [event for event in job.events if event[0] > after]

        async with self.changed:
            try:
                await asyncio.wait_for(self.changed.wait_for(lambda: bool(news())), timeout_s)
            except TimeoutError:
                return []
        return news()

    async def status(self) -> dict[str, Any]:
        """For operators: jobs by status, tuners and what they hold."""
        states = [job.snapshot.status for job in self.jobs.values()]
        return {
            "jobs": {status.value: states.count(status) for status in JobStatus},
            "tuners": {name: {"base": t.base, "job": t.job} for name, t in self.tuners.items()},
        }

    # -- asked by tuners

    async def lease(self, tuner_id: str) -> Lease | None:
        """The next job for a tuner; waits until there is one. None: end, there is no work for you.

        A tuner that still holds a job has lost the process that worked on it: that attempt is over.
        """
        async with self.lock:
            tuner = self.tuners.get(tuner_id)
            if tuner is None:
                return None
            await self._attempt_lost(tuner)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.settings.tuner_idle_seconds
        while True:
            async with self.lock:
                if job := self._next(tuner.base):
                    return await self._lease(tuner_id, tuner, job)
                if self._crowds_out(tuner.base) or loop.time() >= deadline:
                    self.tuners.pop(tuner_id, None)
                    self.wake.set()
                    return None
            async with self.changed:
                ready = self.changed.wait_for(lambda: self._next(tuner.base) or self._crowds_out(tuner.base))
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(ready, deadline - loop.time())

    async def beat(self, job_id: str, attempt: int, beat: Beat) -> Verdict:
        """Progress of a running job."""
        job = self.jobs.get(job_id)
        if job is None or not self._holds(job, attempt):
            return Verdict.lost
        if beat.phase != job.snapshot.phase:
            _background(self._persist(self.store.set_phase, job_id, beat.phase))
        await self._publish(
            job,
            phase=beat.phase,
            step=beat.step,
            total_steps=beat.total_steps,
            progress=beat.progress,
            loss=beat.loss,
            eta_seconds=beat.eta_seconds,
        )
        return Verdict.cancel if job.cancel else Verdict.go_on

    async def finish(self, job_id: str, attempt: int, outcome: Outcome) -> None:
        """An attempt has ended by itself."""
        async with self.lock:
            job = self.jobs.get(job_id)
            if job is None or not self._holds(job, attempt):
                return
            self._release(job)
            if outcome.version is not None:
                version = outcome.version
                await self._end(job, lambda: self.store.succeed(job_id, version))
            elif job.cancel or outcome.failure is None:
                await self._end(job, lambda: self.store.cancel(job_id))
            elif outcome.retry:
                await self._again(job, outcome.failure)
            else:
                failure = outcome.failure
                await self._end(job, lambda: self.store.fail(job_id, failure, outcome.traceback))

    async def refuse(self, tuner_id: str, failure: Failure) -> None:
        """A tuner cannot work at all, e.g. its base cannot be loaded: the jobs that wait for such a tuner fail."""
        async with self.lock:
            if tuner := self.tuners.pop(tuner_id, None):
                await self._fail_queued(tuner.base, failure)

    # -- inside

    async def _run(self) -> None:
        while True:
            try:
                await self._rescan()
                await self._start_tuners()
            except StorageUnavailable as error:
                log.warning("cannot read the runs, trying again: %s", error)
            try:
                await asyncio.wait_for(self.wake.wait(), _RESCAN_SECONDS)
            except TimeoutError:
                continue
            finally:
                self.wake.clear()

    async def _rescan(self) -> None:
        """Adopt every open run that is not known yet; forget ended jobs that nobody watches any more."""
        found = await asyncio.to_thread(self.store.open)
        async with self.lock:
            for snapshot in found:
                if snapshot.id not in self.jobs:
                    await self._take_in(snapshot)
            ended = [job_id for job_id, job in self.jobs.items() if job.snapshot.status.final]
            for job_id in ended[:-_KEPT_ENDED_JOBS]:
                del self.jobs[job_id]

    async def _adopt(self, job_id: str) -> _Job:
        snapshot = await self._persist(self.store.get, job_id)
        return _Job(snapshot) if snapshot.status.final else await self._take_in(snapshot)

    async def _take_in(self, snapshot: TuningJob) -> _Job:
        job = self.jobs[snapshot.id] = _Job(snapshot)
        if snapshot.status == JobStatus.running:  # its tuner went with an earlier scheduler
            await self._again(job, _LOST)
        else:
            await self._publish(job)
        return job

    async def _start_tuners(self) -> None:
        async with self.lock:
            for base in dict.fromkeys(job.snapshot.base for job in self._queued()):
                waiting = sum(job.snapshot.base == base for job in self._queued())
                idle = sum(t.base == base and t.job is None for t in self.tuners.values())
                free = self.settings.max_tuners - len(self.tuners)
                for _ in range(min(waiting - idle, free)):
                    self._start_tuner(base)

    def _start_tuner(self, base: str) -> None:
        tuner_id = f"tuner-{uuid.uuid4().hex[:12]}"
        supervisor = TunerSupervisor.remote()  # type: ignore[attr-defined]
        self.tuners[tuner_id] = _Tuner(base, supervisor)
        _background(self._watch(tuner_id, supervisor.run.remote(self.settings, tuner_id, base)))

    async def _watch(self, tuner_id: str, done: ray.ObjectRef) -> None:
        """Until the tuner ends; whatever it held then is queued again."""
        reason = None
        try:
            await done
        except RayError as error:
            reason = str(error).strip().splitlines()[-1]
            log.warning("%s ended: %s", tuner_id, reason)
        async with self.lock:
            tuner = self.tuners.pop(tuner_id, None)
            if tuner is not None:
                await self._attempt_lost(tuner)
                if reason and not tuner.leased_any:
                    await self._count_failed_start(tuner.base, reason)
        self.wake.set()

    async def _count_failed_start(self, base: str, reason: str) -> None:
        self.failed_starts[base] = self.failed_starts.get(base, 0) + 1
        if self.failed_starts[base] >= self.settings.max_attempts:
            self.failed_starts[base] = 0
            message = f"No tuner could be started in {self.settings.max_attempts} attempts. The last one said: {reason[:500]}"
            await self._fail_queued(base, Failure(code=FailureCode.worker_lost, message=message))

    async def _fail_queued(self, base: str, failure: Failure) -> None:
        for job in [j for j in self._queued() if j.snapshot.base == base]:
            await self._end(job, partial(self.store.fail, job.snapshot.id, failure))

    def _queued(self) -> list[_Job]:
        """Jobs that wait for a tuner, by priority, then age."""
        waiting = [job for job in self.jobs.values() if job.tuner is None and job.snapshot.status == JobStatus.queued]
        return sorted(waiting, key=lambda job: (-job.snapshot.priority, job.snapshot.created_at))

    def _crowds_out(self, base: str) -> bool:
        """True when an idle tuner of `base` takes a place that jobs on another base wait for."""
        elsewhere = any(job.snapshot.base != base for job in self._queued())
        return elsewhere and len(self.tuners) >= self.settings.max_tuners

    def _next(self, base: str) -> _Job | None:
        return next((job for job in self._queued() if job.snapshot.base == base), None)

    async def _lease(self, tuner_id: str, tuner: _Tuner, job: _Job) -> Lease:
        attempt = job.snapshot.attempt + 1
        job.tuner, tuner.job, tuner.leased_any = tuner_id, job.snapshot.id, True
        self.failed_starts.pop(tuner.base, None)
        await self._persist(self.store.start, job.snapshot.id, attempt)
        await self._refresh(job)
        return Lease(job.snapshot, attempt)

    def _holds(self, job: _Job, attempt: int) -> bool:
        return job.tuner is not None and job.snapshot.attempt == attempt and not job.snapshot.status.final

    def _release(self, job: _Job) -> None:
        if tuner := self.tuners.get(job.tuner or ""):
            tuner.job = None
        job.tuner = None

    async def _attempt_lost(self, tuner: _Tuner) -> None:
        job = self.jobs.get(tuner.job or "")
        if job is None or job.snapshot.status.final:
            tuner.job = None
            return
        self._release(job)
        if job.cancel:
            await self._end(job, lambda: self.store.cancel(job.snapshot.id))
        else:
            await self._again(job, _LOST)

    async def _again(self, job: _Job, failure: Failure) -> None:
        """Queue a job whose attempt ended without a result, or fail it when no attempts are left."""
        job_id, attempt = job.snapshot.id, job.snapshot.attempt
        if attempt >= self.settings.max_attempts:
            message = f"{failure.message} This was attempt {attempt} of {self.settings.max_attempts}."
            last = Failure(code=failure.code, message=message)
            await self._end(job, lambda: self.store.fail(job_id, last))
            return
        await self._persist(self.store.requeue, job_id, attempt)
        await self._refresh(job)
        self.wake.set()

    async def _end(self, job: _Job, write: Callable[[], None]) -> None:
        await self._persist(write)
        await self._refresh(job)

    async def _refresh(self, job: _Job) -> None:
        job.snapshot = await self._persist(self.store.get, job.snapshot.id)
        await self._publish(job)

    async def _publish(self, job: _Job, **live: Any) -> None:
        job.snapshot = job.snapshot.model_copy(update=live)
        job.events.append((next(self.event_ids), job.snapshot))
        del job.events[: -_KEPT_EVENTS_OF_ENDED if job.snapshot.status.final else -_KEPT_EVENTS]
        async with self.changed:
            self.changed.notify_all()

    async def _kill_if_deaf(self, job_id: str, tuner_id: str) -> None:
        """A cancelled job whose tuner does not answer in time loses its tuner, and so frees its resources."""
        job, tuner = self.jobs[job_id], self.tuners[tuner_id]
        async with self.changed:
            try:
                await asyncio.wait_for(self.changed.wait_for(lambda: job.tuner != tuner_id), _CANCEL_GRACE_SECONDS)
            except TimeoutError:
                log.warning("%s did not stop job %s in time: ending it", tuner_id, job_id)
                ray.kill(tuner.supervisor)

    async def _persist(self, write: Callable[..., T], *args: Any) -> T:
        """Do a registry call in a thread, again and again while MLflow or S3 are away: nothing is dropped."""
        pause = 0.5
        while True:
            try:
                return await asyncio.to_thread(write, *args)
            except StorageUnavailable as error:
                log.warning("registry away, trying again in %.1f s: %s", pause, error)
                await asyncio.sleep(pause)
                pause = min(pause * 2, 10.0)


_LOST = Failure(code=FailureCode.worker_lost, message="The process that worked on the job died.")
_tasks: set[asyncio.Task[Any]] = set()


def _background(work: Any) -> None:
    # asyncio keeps only weak references to tasks
    task = asyncio.ensure_future(work)
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)


def start_scheduler(settings: Settings) -> Any:
    """The scheduler's handle; started if it is not running. Ray must be initialised."""
    actor = ray.remote(Scheduler).options(
        name=SCHEDULER,
        namespace=NAMESPACE,
        lifetime="detached",
        get_if_exists=True,
        num_cpus=0,
        max_restarts=-1,
        max_task_retries=-1,
        max_concurrency=10_000,
    )
    return actor.remote(settings)
