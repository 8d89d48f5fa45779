"""The scheduler's tuners: who waits for work, who holds which job, whom to start and to end."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter, deque
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass
from typing import Protocol

from services.settings import Settings
from services.tuning.messages import JobClass, TunerStatus
from services.tuning.scheduler.policy import JobQueue, TunerCounts, gives_way, plan
from tav_client.schemas import WaitsFor

_BEAT_SECONDS = 0.5
_BEATS_PER_SECOND = 200
"""Of all tuners together."""


class Launcher(Protocol):
    """Starts tuners, each of which asks the scheduler for leases until it gets none. It travels to the scheduler's actor."""

    def launch(self, tuner_id: str, kind: JobClass) -> Awaitable[None]:
        """Start one. What is awaited ends with the tuner, and raises a `RayError` if it died."""
        ...

    def end(self, tuner_id: str) -> None:
        """End it now, whatever it does; its resources become free."""
        ...


@dataclass
class _Tuner:
    kind: JobClass
    job: str | None = None
    waiting: asyncio.Future[str | None] | None = None
    first_lease: float | None = None
    came: bool = False
    """It has asked for work: it could be started."""
    ending: bool = False
    """It takes its place until it is gone, but no work any more."""


class Tuners:
    """Bookkeeping without waiting; the scheduler's event loop alone calls it."""

    def __init__(self, settings: Settings, queue: JobQueue, launcher: Launcher) -> None:
        self._settings, self._queue, self._launcher = settings, queue, launcher
        self._all: dict[str, _Tuner] = {}
        self._idle: dict[JobClass, deque[str]] = {}
        self._failed_starts: Counter[JobClass] = Counter()

    def status(self) -> dict[str, TunerStatus]:
        """Return the tuners by id, for operators."""
        return {
            name: {"base": t.kind.base, "gpus": t.kind.gpus, "gpu_type": t.kind.gpu_type, "started": t.came, "job": t.job}
            for name, t in self._all.items()
        }

    def states(self) -> dict[str, int]:
        """How many tuners are starting, idle and busy."""
        counts = Counter(_state(tuner) for tuner in self._all.values())
        return {state: counts[state] for state in ("starting", "idle", "busy")}

    def holds(self, tuner_id: str) -> str | None:
        """The job that a tuner has."""
        tuner = self._all.get(tuner_id)
        return tuner.job if tuner else None

    def serve(self, kind: JobClass) -> bool:
        """True when a tuner of the class could be started and has not ended."""
        return any(t.came and not t.ending for t in self._all.values() if t.kind == kind)

    def waits_for(self, kind: JobClass) -> WaitsFor:
        """What a queued job of the class waits for, if its tenant may run one more."""
        starting = any(_state(tuner) == "starting" for tuner in self._all.values() if tuner.kind == kind)
        return WaitsFor.tuner_start if starting else WaitsFor.free_tuner

    def beat_seconds(self) -> float:
        """How often each shall beat, so that many tuners do not keep scheduler and MLflow from their work."""
        return max(_BEAT_SECONDS, len(self._all) / _BEATS_PER_SECOND)

    def ask(self, tuner_id: str) -> Awaitable[str | None]:
        """A tuner asks for a job: it gets one, or None after it has idled for long, or when another class needs its place."""
        tuner = self._all.get(tuner_id)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[str | None] = loop.create_future()
        if tuner is None or tuner.ending:
            future.set_result(None)
            return future
        if tuner.waiting is not None and not tuner.waiting.done():
            tuner.waiting.set_result(None)  # of a process that has died while it waited
        tuner.came = True
        tuner.waiting = future
        self._failed_starts.pop(tuner.kind, None)
        if self._gives_way(tuner):
            self._dismiss(tuner)
            return future
        self._idle.setdefault(tuner.kind, deque()).append(tuner_id)
        loop.call_later(self._settings.tuner_idle_seconds, self._idled, tuner, future)
        return future

    def release(self, tuner_id: str | None) -> None:
        """A tuner has no job any more."""
        if tuner := self._all.get(tuner_id or ""):
            tuner.job = None

    def kill(self, tuner_id: str) -> None:
        """End a tuner now."""
        self._launcher.end(tuner_id)

    def forget(self, tuner_id: str) -> JobClass | None:
        """A tuner ends by itself without having worked; its class."""
        tuner = self._all.get(tuner_id)
        if tuner is None:
            return None
        tuner.ending = tuner.came = True
        return tuner.kind

    def gone(self, tuner_id: str, reason: str | None) -> str | None:
        """A tuner has ended, for `reason` if it died. Gives that reason back when too many in a row died while starting."""
        tuner = self._all.pop(tuner_id, None)
        if tuner is None or reason is None or tuner.came or tuner.ending:
            return None
        self._failed_starts[tuner.kind] += 1
        if self._failed_starts[tuner.kind] < self._settings.max_attempts:
            return None
        del self._failed_starts[tuner.kind]
        return reason

    def assign(self) -> Iterator[tuple[str, str]]:
        """Give jobs to the tuners that wait, as (tuner, job)."""
        for kind in self._queue.kinds():
            idle = self._idle.get(kind, deque())
            while idle:
                tuner = self._all.get(idle[0])
                if tuner is None or tuner.waiting is None or tuner.waiting.done():
                    idle.popleft()
                    continue
                job = self._queue.take(kind)
                if job is None:
                    break
                tuner.job, tuner.first_lease = job.id, tuner.first_lease or time.monotonic()
                tuner.waiting.set_result(job.id)
                yield idle.popleft(), job.id

    def adapt(self) -> Iterator[tuple[str, JobClass, Awaitable[None]]]:
        """Start and end tuners as the policy says; those started, with what ends when they end."""
        changes = plan(self._queue, self._counts(), self._settings.max_tuners)
        for name, tuner in list(self._all.items()) if changes.end_starting or changes.end_idle else ():
            if tuner.ending or tuner.job is not None:
                continue
            if not tuner.came and changes.end_starting[tuner.kind] > 0:
                changes.end_starting[tuner.kind] -= 1
                tuner.ending = True
                self._launcher.end(name)
            elif tuner.waiting is not None and not tuner.waiting.done() and changes.end_idle[tuner.kind] > 0:
                changes.end_idle[tuner.kind] -= 1
                self._dismiss(tuner)
        for kind in changes.start:
            tuner_id = f"tuner-{uuid.uuid4().hex[:12]}"
            self._all[tuner_id] = _Tuner(kind)
            yield tuner_id, kind, self._launcher.launch(tuner_id, kind)

    def _counts(self) -> dict[JobClass, TunerCounts]:
        counts: dict[JobClass, Counter[str]] = {}
        for tuner in self._all.values():
            counts.setdefault(tuner.kind, Counter())[_state(tuner)] += 1
        return {kind: TunerCounts(**states) for kind, states in counts.items()}

    def _gives_way(self, tuner: _Tuner) -> bool:
        if not self._queue.kinds() - {tuner.kind}:
            return False
        now = time.monotonic()
        patient = now - (tuner.first_lease or now) < self._settings.tuner_patience_seconds
        return gives_way(self._queue, tuner.kind, self._counts(), self._settings.max_tuners, patient)

    def _idled(self, tuner: _Tuner, future: asyncio.Future[str | None]) -> None:
        if not future.done():
            self._dismiss(tuner)

    @staticmethod
    def _dismiss(tuner: _Tuner) -> None:
        tuner.ending = True
        if tuner.waiting is not None and not tuner.waiting.done():
            tuner.waiting.set_result(None)


def _state(tuner: _Tuner) -> str:
    if tuner.job is not None or tuner.ending:
        return "busy"
    return "idle" if tuner.came else "starting"
