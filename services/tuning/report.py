"""What an attempt reports while it works: progress and its end to the scheduler, metrics and its log to the run."""

from __future__ import annotations

import logging
import time
from typing import Any

import ray

from registry.errors import StorageUnavailable
from registry.jobs import JobStore
from services.tuning.joblog import JobLog
from services.tuning.lease import Beat, Lease, Outcome, Verdict
from tav import Base, Progress
from tav_client.schemas import JobPhase

log = logging.getLogger(__name__)

_BEAT_SECONDS = 0.5
_FLUSH_SECONDS = 5.0
_LOGGED_STEPS = 20
"""Lines about a phase's steps in a job's log."""
# Cost of one step in network forwards: with the backward pass, one forward, and one guided (two) forwards.
_COSTS = {"tuning": 3.0, "inverting": 1.0, "sampling": 2.0}


class Reporter:
    """Speaks for the leader of an attempt's ranks; on the others nothing calls it."""

    def __init__(self, lease: Lease, scheduler: Any, store: JobStore, joblog: JobLog) -> None:
        self._job, self._attempt = lease.job, lease.attempt
        self._scheduler, self._store, self._joblog = scheduler, store, joblog
        self._metrics: list[tuple[str, float, int, int]] = []
        self._last_beat = self._last_flush = 0.0
        self._total_cost, self._done_cost = 1.0, 0.0
        self._worked_cost = self._worked_seconds = 0.0
        self._phase = JobPhase.preparing
        self.verdict = Verdict.go_on

    def plan(self, base: Base, tuning_steps: int, samples: int) -> None:
        """How much there is to do, for progress and the time that is left."""
        steps = {
            "tuning": tuning_steps,
            "inverting": base.invert_config().num_inference_steps,
            "sampling": samples * base.sample_config().num_inference_steps,
        }
        self._total_cost = sum(_COSTS[phase] * count for phase, count in steps.items())

    def step(self, progress: Progress) -> Verdict:
        """After every step; asks the scheduler and writes to the run from time to time."""
        cost, now = _COSTS[progress.phase], time.monotonic()
        self._worked_cost += cost
        self._worked_seconds += progress.seconds
        self._done_cost = max(self._done_cost + cost, progress.step * cost if progress.phase == "tuning" else 0)
        if progress.loss is not None:
            stamp = time.time_ns() // 1_000_000
            self._metrics.append(("loss", progress.loss, progress.step, stamp))
            self._metrics.append(("step_seconds", progress.seconds, progress.step, stamp))
        if progress.step % max(1, progress.total // _LOGGED_STEPS) == 0 or progress.step in (1, progress.total):
            loss = "" if progress.loss is None else f", loss {progress.loss:.4f}"
            log.info("%s: step %d of %d%s, %.2f s", progress.phase, progress.step, progress.total, loss, progress.seconds)
        if now - self._last_flush >= _FLUSH_SECONDS:
            self.flush()
        if now - self._last_beat >= _BEAT_SECONDS or progress.step == progress.total:
            phase = JobPhase.validating if progress.phase == "sampling" else JobPhase(progress.phase)
            return self.ask(phase, progress.step, progress.total, progress.loss)
        return self.verdict

    def ask(self, phase: JobPhase, step: int = 0, total: int = 1, loss: float | None = None) -> Verdict:
        """Tell the scheduler where the work stands; its verdict."""
        left = self._total_cost - self._done_cost
        eta = left * self._worked_seconds / self._worked_cost if self._worked_cost else None
        beat = Beat(phase, step, total, min(1.0, self._done_cost / self._total_cost), loss, eta)
        self._phase = phase
        self.verdict = ray.get(self._scheduler.beat.remote(self._job.id, self._attempt, beat))
        self._last_beat = time.monotonic()
        return self.verdict

    def ask_again(self) -> Verdict:
        """The scheduler's verdict where nothing has changed."""
        return self.ask(self._phase)

    def end(self, outcome: Outcome) -> None:
        """The attempt has ended."""
        self.flush()
        ray.get(self._scheduler.finish.remote(self._job.id, self._attempt, outcome))

    def flush(self) -> None:
        """Write metrics and log to the run. While storage is away they are kept for the next time."""
        self._last_flush = time.monotonic()
        points, self._metrics = self._metrics, []
        try:
            if points:
                self._store.log_metrics(self._job.id, points)
        except StorageUnavailable as error:
            self._metrics = points
            log.warning("metrics cannot be kept now: %s", error)
        text = self._joblog.news()
        try:
            if text is not None:
                self._store.log_bytes(self._job.id, text, f"logs/attempt-{self._attempt:03d}.txt")
        except StorageUnavailable as error:
            self._joblog.again()
            log.warning("the log cannot be kept now: %s", error)
