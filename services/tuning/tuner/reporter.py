"""What an attempt reports: progress and outcome to the scheduler, metrics and log to the run.

No step waits for it: the answer to a beat is read at a later step, and a thread writes to the run.
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
"""Lines that a job's log has about the steps of a phase."""
# Cost of one step in network forwards: with the backward pass, one forward, and one guided (two) forwards.
_COSTS = {"tuning": 3.0, "inverting": 1.0, "sampling": 2.0}


class Reporter:
    """Reports for the leader of an attempt's ranks; on the others nothing calls it.

    Args:
        lease: the job and the attempt.
        scheduler: the actor's handle.
        store: of the jobs' runs.
        job_log: the attempt's.
    """

    def __init__(self, lease: Lease, scheduler: Any, store: JobStore, job_log: JobLog) -> None:
        self._job, self._attempt = lease.job, lease.attempt
        self._scheduler, self._store, self._job_log = scheduler, store, job_log
        self._metrics: list[tuple[str, float, int, int]] = []
        self._beat_seconds, self._flush_seconds = lease.beat_seconds, _BEATS_PER_FLUSH * lease.beat_seconds
        self._last_beat = self._last_flush = 0.0
        self._pending_beat: Any = None
        self._thread = ThreadPoolExecutor(1, "report")
        self._pending_write: Future[None] | None = None
        self._total_cost, self._done_cost = 1.0, 0.0
        self._worked_cost = self._worked_seconds = 0.0
        self._phase = JobPhase.preparing
        self.caption: str | None = None
        """Of a clip that was captioned here; sent with every beat."""
        self.unread: dict[str, str] | None = None
        """The ends of the job's texts that the base does not read; sent with every beat."""
        self._estimate: Estimate | None = None
        self.verdict = Verdict.go_on

    def plan(self, base: Base, tuning_steps: int, samples: int) -> None:
        """Set how much there is to do, for progress and the remaining time."""
        steps = {
            "tuning": tuning_steps,
            "inverting": base.invert_config().num_inference_steps,
            "sampling": samples * base.sample_config().num_inference_steps,
        }
        self._total_cost = sum(_COSTS[phase] * count for phase, count in steps.items())

    def step(self, progress: Progress) -> Verdict:
        """Report a step; from time to time, beat and write to the run. Return the scheduler's last verdict."""
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
        if self._pending_beat is not None and ray.wait([self._pending_beat], timeout=0)[0]:
            self._read_verdict()
        if self._pending_beat is None and (now - self._last_beat >= self._beat_seconds or progress.step == progress.total):
            phase = JobPhase.validating if progress.phase == "sampling" else JobPhase(progress.phase)
            self._beat(phase, progress.step, progress.total, progress.loss)
        return self.verdict

    def expect(self, estimate: Estimate | None) -> None:
        """Report what the job takes in the memory setting that it is tuned in from now on; None: it is not known."""
        if estimate is None:
            return
        log.info("%.2f GiB and %.0f s are expected", estimate.peak_memory_bytes / 2**30, estimate.seconds)
        self._estimate = estimate
        try:
            self._store.set_estimate(self._job.id, estimate)
        except TavError as error:
            log.warning("the estimate is not kept: %s", error)

    def scores(self, metrics: Mapping[str, float], step: int) -> None:
        """Add metrics of the results, which are written with the others."""
        stamp = time.time_ns() // 1_000_000
        self._metrics.extend((name, value, step, stamp) for name, value in metrics.items())

    def ask(self, phase: JobPhase) -> Verdict:
        """Report that a phase begins, wait for the scheduler's verdict and return it."""
        if self._pending_beat is not None:
            self._read_verdict()
        self._beat(phase, 0, 1, None)
        self._read_verdict()
        return self.verdict

    def _beat(self, phase: JobPhase, step: int, total: int, loss: float | None) -> None:
        left = self._total_cost - self._done_cost
        eta = left * self._worked_seconds / self._worked_cost if self._worked_cost else None
        progress = min(1.0, self._done_cost / self._total_cost)
        beat = Beat(phase, step, total, progress, loss, eta, self.caption, self._estimate, self.unread)
        self._phase = phase
        self._pending_beat = self._scheduler.beat.remote(self._job.id, self._attempt, beat)
        self._last_beat = time.monotonic()

    def _read_verdict(self) -> None:
        self.verdict, self._pending_beat = ray.get(self._pending_beat), None

    def ask_again(self) -> Verdict:
        """Ask for the scheduler's verdict where nothing has changed."""
        return self.ask(self._phase)

    def end(self, outcome: Outcome | None) -> None:
        """Report the attempt's outcome; None: the attempt is not this tuner's any more."""
        self._thread.shutdown()
        if outcome is None:
            return
        self._write()
        ray.get(self._scheduler.finish.remote(self._job.id, self._attempt, outcome))

    def flush(self) -> None:
        """Begin to write metrics and log to the run, unless a write goes on."""
        self._last_flush = time.monotonic()
        metrics.gpu_memory("tuner")
        if self._pending_write is None or self._pending_write.done():
            self._pending_write = self._thread.submit(copy_context().run, self._write)

    def _write(self) -> None:
        """Write metrics and log to the run; while storage is away, keep them for the next time."""
        points, self._metrics = self._metrics, []
        try:
            if points:
                self._store.log_metrics(self._job.id, points)
        except TavError as error:
            self._metrics = points + self._metrics
            log.warning("metrics cannot be kept now: %s", error)
        text = self._job_log.text()
        try:
            if text is not None:
                self._store.log_bytes(self._job.id, text, f"logs/attempt-{self._attempt:03d}.txt")
        except TavError as error:
            self._job_log.discard_last()
            log.warning("the log cannot be kept now: %s", error)
