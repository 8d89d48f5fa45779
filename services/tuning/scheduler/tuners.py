"""The scheduler's tuners: which wait for work, which job each has, which to start and to end."""

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
    """Starts and ends tuners. It is sent to the scheduler's actor, so it can be pickled."""

    def launch(self, tuner_id: str, kind: JobClass) -> Awaitable[None]:
        """Start a tuner. The result is done when the tuner ends, and raises a `RayError` if it died."""
        ...

    def end(self, tuner_id: str) -> None:
        """End a tuner now, whatever it does; its resources become free."""
        ...


@dataclass
class _Tuner:
    kind: JobClass
    job: str | None = None
    waiting: asyncio.Future[str | None] | None = None
    first_lease: float | None = None
    started: bool = False
    """It has asked for work."""
    ending: bool = False
    """It gets no work any more, but has its place until it has ended."""


class Tuners:
    """All tuners by id. Nothing here waits; the scheduler's event loop alone calls it."""

    def __init__(self, settings: Settings, queue: JobQueue, launcher: Launcher) -> None:
        self._settings, self._queue, self._launcher = settings, queue, launcher
        self._all: dict[str, _Tuner] = {}
        self._idle: dict[JobClass, deque[str]] = {}
        self._failed_starts: Counter[JobClass] = Counter()

    def status(self) -> dict[str, TunerStatus]:
        """Return the tuners by id, for operators."""
        return {
            tuner_id: {
                "base": t.kind.base,
                "gpus": t.kind.gpus,
                "gpu_type": t.kind.gpu_type,
                "started": t.started,
                "job": t.job,
            }
            for tuner_id, t in self._all.items()
        }

    def states(self) -> dict[str, int]:
        """Return how many tuners are starting, idle and busy."""
        counts = Counter(_state(tuner) for tuner in self._all.values())
        return {state: counts[state] for state in ("starting", "idle", "busy")}

    def job_of(self, tuner_id: str) -> str | None:
        """Return the id of the job that a tuner has."""
        tuner = self._all.get(tuner_id)
        return tuner.job if tuner else None

    def serves(self, kind: JobClass) -> bool:
        """Return whether a tuner of the class has started and not ended."""
        return any(t.started and not t.ending for t in self._all.values() if t.kind == kind)

    def waits_for(self, kind: JobClass) -> WaitsFor:
        """Return what a queued job of the class waits for, if its tenant may run one more."""
        starting = any(_state(tuner) == "starting" for tuner in self._all.values() if tuner.kind == kind)
        return WaitsFor.tuner_start if starting else WaitsFor.free_tuner

    def beat_seconds(self) -> float:
        """Return the time between a tuner's beats: longer with many tuners, which would load scheduler and MLflow."""
        return max(_BEAT_SECONDS, len(self._all) / _BEATS_PER_SECOND)

    def ask(self, tuner_id: str) -> Awaitable[str | None]:
        """Return what will be the tuner's next job, or None: after long idling, or when another class needs its place."""
        tuner = self._all.get(tuner_id)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[str | None] = loop.create_future()
        if tuner is None or tuner.ending:
            future.set_result(None)
            return future
        if tuner.waiting is not None and not tuner.waiting.done():
            tuner.waiting.set_result(None)  # its process has died while it waited
        tuner.started = True
        tuner.waiting = future
        self._failed_starts.pop(tuner.kind, None)
        if self._gives_way(tuner):
            self._dismiss(tuner)
            return future
        self._idle.setdefault(tuner.kind, deque()).append(tuner_id)
        loop.call_later(self._settings.tuner_idle_seconds, self._dismiss_if_idle, tuner, future)
        return future

    def release(self, tuner_id: str | None) -> None:
        """Note that a tuner has no job any more."""
        if tuner := self._all.get(tuner_id or ""):
            tuner.job = None

    def kill(self, tuner_id: str) -> None:
        """End a tuner now."""
        self._launcher.end(tuner_id)

    def forget(self, tuner_id: str) -> JobClass | None:
        """Note that a tuner ends by itself without having worked; return its class."""
        tuner = self._all.get(tuner_id)
        if tuner is None:
            return None
        tuner.ending = tuner.started = True
        return tuner.kind

    def remove(self, tuner_id: str, reason: str | None) -> str | None:
        """Remove a tuner that has ended.

        Args:
            tuner_id: the tuner.
            reason: why it died, if it died.

        Returns:
            The reason, when too many of a class in a row have died while they started.
        """
        tuner = self._all.pop(tuner_id, None)
        if tuner is None or reason is None or tuner.started or tuner.ending:
            return None
        self._failed_starts[tuner.kind] += 1
        if self._failed_starts[tuner.kind] < self._settings.max_attempts:
            return None
        del self._failed_starts[tuner.kind]
        return reason

    def assign(self) -> Iterator[tuple[str, str]]:
        """Give jobs to the tuners that wait; yield the ids of tuner and job."""
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
        """Start and end tuners as the policy says; yield those started, each with an awaitable that is done when it ends."""
        changes = plan(self._queue, self._counts(), self._settings.max_tuners)
        for tuner_id, tuner in list(self._all.items()) if changes.end_starting or changes.end_idle else ():
            if tuner.ending or tuner.job is not None:
                continue
            if not tuner.started and changes.end_starting[tuner.kind] > 0:
                changes.end_starting[tuner.kind] -= 1
                tuner.ending = True
                self._launcher.end(tuner_id)
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

    def _dismiss_if_idle(self, tuner: _Tuner, future: asyncio.Future[str | None]) -> None:
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
    return "idle" if tuner.started else "starting"
