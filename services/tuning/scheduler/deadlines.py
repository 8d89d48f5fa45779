"""How long jobs may wait and run."""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterator

from services.settings import Settings
from services.tuning.scheduler.open_jobs import OpenJob
from tav_client.schemas import Failure, FailureCode


class Limits:
    """The open jobs' deadlines, the service's own where a job does not say."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._heap: list[tuple[float, str]] = []

    def waits(self, job: OpenJob) -> None:
        """The job waits for a tuner from now on."""
        if (limit := self._of_queue(job)) is not None:
            heapq.heappush(self._heap, (job.queued_at + limit, job.snapshot.id))

    def runs(self, job: OpenJob) -> None:
        """The job has been started."""
        if (limit := self._of_run(job)) is not None and job.snapshot.started_at is not None:
            heapq.heappush(self._heap, (job.snapshot.started_at + limit, job.snapshot.id))

    def due(self) -> Iterator[str]:
        """Jobs of which a deadline has passed; they may have kept it."""
        now = time.time()
        while self._heap and self._heap[0][0] <= now:
            yield heapq.heappop(self._heap)[1]

    def exceeded(self, job: OpenJob, waits: bool, served: bool) -> Failure | None:
        """Why the job is to end now, if it is.

        Args:
            job: Which.
            waits: It waits for a tuner.
            served: There is a tuner of its class.
        """
        now, started = time.time(), job.snapshot.started_at
        run, wait = self._of_run(job), self._of_queue(job)
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

    def _of_queue(self, job: OpenJob) -> float | None:
        own = job.snapshot.queue_deadline_seconds
        return self._settings.queue_deadline_seconds if own is None else own

    def _of_run(self, job: OpenJob) -> float | None:
        own = job.snapshot.run_deadline_seconds
        return self._settings.run_deadline_seconds if own is None else own


def _late(message: str) -> Failure:
    return Failure(code=FailureCode.deadline_exceeded, message=message)
