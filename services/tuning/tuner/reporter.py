"""What an attempt reports while it works: progress and its end to the scheduler, metrics and its log to the run.

Nothing of it holds up a step: beats are answered later, and a thread writes to the run.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

import ray

from registry.jobs import JobStore
from services import metrics
from services.tuning.messages import Beat, Lease, Outcome, Verdict
from services.tuning.tuner.job_log import JobLog
from tav import Base, Progress, TavError
from tav_client.schemas import Estimate, JobPhase

log = logging.getLogger(__name__)

_BEATS_PER_FLUSH = 10
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
        self._beat_seconds, self._flush_seconds = lease.beat_seconds, _BEATS_PER_FLUSH * lease.beat_seconds
        self._last_beat = self._last_flush = 0.0
        self._beating: Any = None
        self._thread = ThreadPoolExecutor(1, "report")
        self._writing: Future[None] | None = None
        self._total_cost, self._done_cost = 1.0, 0.0
        self._worked_cost = self._worked_seconds = 0.0
        self._phase = JobPhase.preparing
        self.caption: str | None = None
        """Of a clip that was captioned here; told with every beat."""
        self.unread: dict[str, str] | None = None
        """What of the job's texts the base does not read; told likewise."""
        self._estimate: Estimate | None = None
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
        metrics.STEP_SECONDS.observe(progress.seconds, {"phase": progress.phase})
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
        if now - self._last_flush >= self._flush_seconds:
            self.flush()
        if self._beating is not None and ray.wait([self._beating], timeout=0)[0]:
            self._hear()
        if self._beating is None and (now - self._last_beat >= self._beat_seconds or progress.step == progress.total):
            phase = JobPhase.validating if progress.phase == "sampling" else JobPhase(progress.phase)
            self._tell(phase, progress.step, progress.total, progress.loss)
        return self.verdict

    def expect(self, estimate: Estimate | None) -> None:
        """What the job takes in the memory setting that it works in from now on; None: nobody knows."""
        if estimate is None:
            return
        log.info("%.2f GiB and %.0f s are expected", estimate.peak_memory_bytes / 2**30, estimate.seconds)
        self._estimate = estimate
        try:
            self._store.set_estimate(self._job.id, estimate)
        except TavError as error:
            log.warning("the estimate is not kept: %s", error)

    def scores(self, metrics: Mapping[str, float], step: int) -> None:
        """Metrics of what was made, written with the rest."""
        stamp = time.time_ns() // 1_000_000
        self._metrics.extend((name, value, step, stamp) for name, value in metrics.items())

    def ask(self, phase: JobPhase) -> Verdict:
        """Tell the scheduler that a phase begins, and wait for its verdict."""
        if self._beating is not None:
            self._hear()
        self._tell(phase, 0, 1, None)
        self._hear()
        return self.verdict

    def _tell(self, phase: JobPhase, step: int, total: int, loss: float | None) -> None:
        left = self._total_cost - self._done_cost
        eta = left * self._worked_seconds / self._worked_cost if self._worked_cost else None
        done = min(1.0, self._done_cost / self._total_cost)
        beat = Beat(phase, step, total, done, loss, eta, self.caption, self._estimate, self.unread)
        self._phase = phase
        self._beating = self._scheduler.beat.remote(self._job.id, self._attempt, beat)
        self._last_beat = time.monotonic()

    def _hear(self) -> None:
        self.verdict, self._beating = ray.get(self._beating), None

    def ask_again(self) -> Verdict:
        """The scheduler's verdict where nothing has changed."""
        return self.ask(self._phase)

    def end(self, outcome: Outcome | None) -> None:
        """The attempt has ended; None: it is not this tuner's any more."""
        self._thread.shutdown()
        if outcome is None:
            return
        self._write()
        ray.get(self._scheduler.finish.remote(self._job.id, self._attempt, outcome))

    def flush(self) -> None:
        """Begin to write metrics and log to the run, unless that is going on."""
        self._last_flush = time.monotonic()
        metrics.gpu_memory("tuner")
        if self._writing is None or self._writing.done():
            self._writing = self._thread.submit(copy_context().run, self._write)

    def _write(self) -> None:
        """While storage is away, what there is is kept for the next time."""
        points, self._metrics = self._metrics, []
        try:
            if points:
                self._store.log_metrics(self._job.id, points)
        except TavError as error:
            self._metrics = points + self._metrics
            log.warning("metrics cannot be kept now: %s", error)
        text = self._joblog.news()
        try:
            if text is not None:
                self._store.log_bytes(self._job.id, text, f"logs/attempt-{self._attempt:03d}.txt")
        except TavError as error:
            self._joblog.again()
            log.warning("the log cannot be kept now: %s", error)
