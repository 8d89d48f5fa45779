"""What an attempt does around its work: it reports, hears whether to go on, writes checkpoints, and waits for storage."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

import ray.train

from registry.errors import StorageUnavailable
from services.retries import pauses, retry
from services.settings import Settings
from services.tuning.messages import Verdict
from services.tuning.tuner.checkpoints import CheckpointStore
from services.tuning.tuner.ranks import Ranks
from services.tuning.tuner.reporter import Reporter
from tav import Progress, Tuner
from tav.tuning import TuneState
from tav_client.schemas import JobPhase, TuningJob

log = logging.getLogger(__name__)
T = TypeVar("T")

FLAGS = 4
"""What the ranks agree on after each step: stop, checkpoint, ask for a preemption notice, and whether one has failed."""

_LONGEST_PAUSE_SECONDS = 5.0
_NOTICE_SECONDS = 2.0
"""Between two looks for a node's preemption notice; each is a round through Ray Train."""


class AttemptStopped(Exception):
    """The scheduler's last verdict was to stop."""


class NodePreempted(Exception):
    """A node of the tuner is about to be taken away; a checkpoint has been written."""


class OtherRankFailed(Exception):
    """Another rank has failed in this step; `Ranks.share` raises its error."""


class Control:
    """The control of one attempt, on every rank; the leader alone speaks with the scheduler.

    Args:
        job: the job.
        settings: the service's; they say how often to write a checkpoint, and how long to wait for storage.
        ranks: the tuner's processes.
        report: what the leader tells the scheduler.
        checkpoints: the job's.
    """

    def __init__(
        self, job: TuningJob, settings: Settings, ranks: Ranks, report: Reporter, checkpoints: CheckpointStore
    ) -> None:
        self.job, self.settings, self.ranks = job, settings, ranks
        self.report, self.checkpoints = report, checkpoints
        self.tuner: Tuner | None = None
        """The tuner at work, whose state is written as checkpoint."""
        self._last_checkpoint = time.monotonic()
        self._last_look = -_NOTICE_SECONDS  # the first step looks

    def begin(self, phase: JobPhase) -> None:
        """Report that a phase begins.

        Raises:
            AttemptStopped: the job is to stop.
        """
        log.info("%s", phase.value)
        if self.ranks.leader and self.report.ask(phase) is not Verdict.go_on:
            raise AttemptStopped

    def check(self) -> None:
        """Ask the scheduler whether the job may go on.

        Raises:
            AttemptStopped: it may not.
        """
        if self.ranks.leader and self.report.ask_again() is not Verdict.go_on:
            raise AttemptStopped

    def on_step(self, progress: Progress) -> None:
        """Report a step of any phase; while tuning, agree with the other ranks on what to do next, and write checkpoints.

        Raises:
            AttemptStopped: the job is to stop.
            NodePreempted: the job is to go on elsewhere.
            OtherRankFailed: another rank did not come to the end of this step.
        """
        now, leader = time.monotonic(), self.ranks.leader
        tuning, leave = progress.phase == "tuning", False
        due = tuning and now - self._last_checkpoint >= self.settings.checkpoint_seconds
        stop = leader and self.report.step(progress) is not Verdict.go_on
        if tuning:
            look = leader and now - self._last_look >= _NOTICE_SECONDS
            stop, due, look, failed = self.ranks.any(stop, due and leader, look, False)
            if failed:
                raise OtherRankFailed
            leave = look and self._is_preempted()
        if stop:
            raise AttemptStopped
        if progress.step == progress.total:
            return
        if due or leave:
            assert self.tuner is not None
            state = self.tuner.state()
            if leader:
                self._save_checkpoint(state)
            self._last_checkpoint = time.monotonic()
        if leave:
            raise NodePreempted

    def retry(self, call: Callable[[], T]) -> T:
        """Make a call that needs storage, or room on the disk, again and again while it fails for want of them.

        As long as the settings allow and the job may go on. A tuner on a full disk so delays few jobs, instead of taking one
        after the other and failing them all.

        Raises:
            AttemptStopped: the job is to stop.
        """
        deadline = time.monotonic() + self.settings.storage_patience_seconds
        return retry(call, pauses(_LONGEST_PAUSE_SECONDS, deadline), after_pause=self.check)

    def _is_preempted(self) -> bool:
        """Return whether a node of the tuner is about to be taken away. All ranks ask together."""
        self._last_look = time.monotonic()
        if ray.train.get_preemption_info() is None:
            return False
        log.warning("a node of this tuner is about to be taken away: the job goes on elsewhere")
        return True

    def _save_checkpoint(self, state: TuneState) -> None:
        try:
            self.checkpoints.save(state)
        except StorageUnavailable as error:
            log.warning("no checkpoint at step %d: %s", state.step, error)  # the next one may be written
        else:
            log.info("checkpoint at step %d", state.step)
