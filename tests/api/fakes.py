"""Fakes of the scheduler and the sampler, for tests without Ray."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator
from functools import partial
from typing import Any

from registry import JobStore
from services.sampling.messages import Reply, SampledVideo, Step
from services.tuning.client import SchedulerAway
from tav_client.schemas import JobStatus, ModelVersion, TuningJob, VideoCreate

MP4 = b"\0\0\0\x18ftypisom" + bytes(64)


class FakeScheduler:
    """A scheduler that has the snapshots which a test publishes; `away`, it does not answer."""

    def __init__(self, jobs: JobStore) -> None:
        self.away = False
        self.notified = 0
        self.snapshots: dict[str, list[TuningJob]] = {}
        self._jobs = jobs

    def publish(self, job: TuningJob) -> None:
        self.snapshots.setdefault(job.id, []).append(job)

    async def notify(self, job: TuningJob) -> None:
        self._answer()
        self.notified += 1

    async def cancel(self, job_id: str) -> TuningJob:
        self._answer()
        await asyncio.to_thread(self._jobs.cancel, job_id)
        return await asyncio.to_thread(self._jobs.get, job_id)

    async def queued(self, tenant: str) -> int:
        self._answer()
        page = await asyncio.to_thread(partial(self._jobs.list, limit=1000, status=JobStatus.queued, tenant=tenant))
        return len(page.data)

    async def live(self, job_id: str) -> TuningJob | None:
        self._answer()
        return self.snapshots[job_id][-1] if job_id in self.snapshots else None

    async def events(self, job_id: str, after: int, timeout_s: float) -> list[tuple[int, TuningJob]]:
        self._answer()
        if job_id not in self.snapshots:
            return [(1, await asyncio.to_thread(self._jobs.get, job_id))]
        for _ in range(int(timeout_s * 20) + 1):
            if news := [(n, job) for n, job in enumerate(self.snapshots[job_id], 1) if n > after]:
                return news
            await asyncio.sleep(0.05)
        return []

    async def status(self) -> dict[str, Any]:
        self._answer()
        return {}

    def _answer(self) -> None:
        if self.away:
            raise SchedulerAway("The scheduler does not answer.")


def sampled(content: bytes = MP4) -> SampledVideo:
    """Return the reply of a sampler with a video."""
    return SampledVideo(content, seconds=1.0, size=(64, 64), metrics={"sampling_seconds": 0.5, "latency_seconds": 0.6})


class FakeSampler:
    """A sampler of ten steps, which waits at the fifth for `gate` and ends with `reply`."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.reply: Reply | Exception = sampled()
        self.unread: dict[str, str] = {}
        self.requests: list[tuple[VideoCreate, ModelVersion]] = []
        self.closed = threading.Event()

    async def sample(self, request: VideoCreate, version: ModelVersion) -> AsyncGenerator[Reply, None]:
        self.requests.append((request, version))
        try:
            for step in range(1, 11):
                yield Step(step, 10, self.unread if step == 1 else {})
                while step == 5 and not self.gate.is_set():
                    await asyncio.sleep(0.01)
            if isinstance(self.reply, Exception):
                raise self.reply
            yield self.reply
        finally:
            self.closed.set()
