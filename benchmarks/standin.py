"""Tuners that only report: they lease, beat as often as a real one does, and finish, without a tuning."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import ray

from services.runtime import NAMESPACE, SCHEDULER
from services.tuning.messages import Beat, JobClass, Lease, Outcome
from tav_client.schemas import JobPhase

PER_PROCESS = 100
_SHARES = {JobPhase.tuning: 0.9, JobPhase.inverting: 0.04, JobPhase.validating: 0.04, JobPhase.registering: 0.02}
"""Of a job's time, as in a real one."""


@ray.remote(num_cpus=0, max_concurrency=10_000)
class StandIns:
    """Many of them in one process."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.free = seconds, asyncio.Event()
        self.leases: list[tuple[str, float, float]] = []
        self.beats: list[tuple[float, float]] = []
        self.finished = 0
        self.at_work: dict[str, asyncio.Task[None]] = {}

    async def tune(self, tuner_id: str) -> None:
        """A tuner's life; nothing begins before `begin`."""
        self.at_work[tuner_id] = asyncio.ensure_future(self._tune(tuner_id))
        try:
            await asyncio.wait([self.at_work[tuner_id]])
        finally:
            del self.at_work[tuner_id]

    async def end(self, tuner_id: str) -> None:
        """As if its resources were taken away."""
        if task := self.at_work.get(tuner_id):
            task.cancel()

    async def begin(self) -> None:
        """All tuners are free from now on."""
        self.free.set()

    async def done(self) -> int:
        """Jobs finished."""
        return self.finished

    async def seen(self) -> tuple[list[tuple[str, float, float]], list[tuple[float, float]]]:
        """Leases as (job, asked, got), and beats as (when, seconds)."""
        return self.leases, self.beats

    async def _tune(self, tuner_id: str) -> None:
        scheduler = await asyncio.to_thread(ray.get_actor, SCHEDULER, NAMESPACE)
        await self.free.wait()
        while True:
            asked = time.time()
            lease = await scheduler.lease.remote(tuner_id)
            if lease is None:
                return
            self.leases.append((lease.job.id, asked, time.time()))
            await self._work(scheduler, lease)

    async def _work(self, scheduler: Any, lease: Lease) -> None:
        for phase, share in _SHARES.items():
            until = time.monotonic() + share * self.seconds
            while True:
                began = time.monotonic()
                await scheduler.beat.remote(lease.job.id, lease.attempt, Beat(phase, 1, 500, 0.5, 0.1, 10.0))
                self.beats.append((time.time(), time.monotonic() - began))
                if (left := until - time.monotonic()) <= 0:
                    break
                await asyncio.sleep(min(lease.beat_seconds, left))
        await scheduler.finish.remote(lease.job.id, lease.attempt, Outcome(version=1))
        self.finished += 1


class StandInLauncher:
    """A `tuners.Launcher` that spreads stand-ins over some processes."""

    def __init__(self, processes: list[Any]) -> None:
        self.processes = processes
        self.place: dict[str, Any] = {}

    def launch(self, tuner_id: str, kind: JobClass) -> Any:
        """See `tuners.Launcher`."""
        self.place[tuner_id] = self.processes[len(self.place) % len(self.processes)]
        return self.place[tuner_id].tune.remote(tuner_id)

    def end(self, tuner_id: str) -> None:
        """See `tuners.Launcher`."""
        self.place[tuner_id].end.remote(tuner_id)
