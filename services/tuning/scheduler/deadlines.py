"""Until when jobs may wait and run."""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterator

from services.settings import Settings
from services.tuning.scheduler.open_jobs import OpenJob
from tav_client.schemas import Failure, FailureCode


class Deadlines:
    """The open jobs' deadlines: a job's own, or else the service's."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._heap: list[tuple[float, str]] = []

    def waits(self, job: OpenJob) -> None:
        """Note a job that begins to wait for a tuner."""
        if (seconds := self._queue_seconds(job)) is not None:
            heapq.heappush(self._heap, (job.queued_at + seconds, job.snapshot.id))

    def runs(self, job: OpenJob) -> None:
        """Note a job that has been started."""
        if (seconds := self._run_seconds(job)) is not None and job.snapshot.started_at is not None:
            heapq.heappush(self._heap, (job.snapshot.started_at + seconds, job.snapshot.id))

    def due(self) -> Iterator[str]:
        """Yield the jobs of which a deadline has passed; they may have met it."""
        now = time.time()
        while self._heap and self._heap[0][0] <= now:
            yield heapq.heappop(self._heap)[1]

    def exceeded(self, job: OpenJob, waits: bool, served: bool) -> Failure | None:
        """Return why the job is to end now, if it is.

        Args:
            job: the job.
            waits: it waits for a tuner.
            served: there is a tuner of its class.
        """
        now, started = time.time(), job.snapshot.started_at
        run, wait = self._run_seconds(job), self._queue_seconds(job)
        if run is not None and started is not None and now >= started + run:
            return _late(f"It was not done {run:g} seconds after its first start: raise run_deadline_seconds, or ask for less.")
        if not waits or wait is None or now < job.queued_at + wait:
            return None
        if served:
            return _late(f"No tuner was free for it within {wait:g} seconds: try again later, or raise queue_deadline_seconds.")
        kind = job.kind
        message = (
            f"No tuner for base {kind.base!r} on {kind.gpus} x {kind.gpu_type or 'any'} could be started within {wait:g} s: "
            "the cluster has no such resources free, or all places for tuners are taken. Try again later, or ask the "
            "operator."
        )
        return Failure(code=FailureCode.no_resources, message=message)

    def _queue_seconds(self, job: OpenJob) -> float | None:
        own = job.snapshot.queue_deadline_seconds
        return self._settings.queue_deadline_seconds if own is None else own

    def _run_seconds(self, job: OpenJob) -> float | None:
        own = job.snapshot.run_deadline_seconds
        return self._settings.run_deadline_seconds if own is None else own


def _late(message: str) -> Failure:
    return Failure(code=FailureCode.deadline_exceeded, message=message)
