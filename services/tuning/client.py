"""The gateway's client of the scheduler. While the scheduler is away, jobs stay queued in their runs."""

from __future__ import annotations

import asyncio
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from services.runtime import NAMESPACE, SCHEDULER
from services.snapshots import Event
from services.tuning.messages import SchedulerStatus
from tav.errors import TavError
from tav_client.schemas import TuningJob

_ANSWER_SECONDS = 5.0
_CANCEL_SECONDS = 30.0


class SchedulerAway(Exception):
    """The scheduler does not run, or does not answer in time."""


class SchedulerClient:
    """The scheduler's methods, called on its named Ray actor. Each may raise `SchedulerAway`."""

    def __init__(self) -> None:
        self._actor: Any = None

    async def notify(self, job: TuningJob) -> None:
        """Tell the scheduler of a new job."""
        await self._call("notify", job)

    async def cancel(self, job_id: str) -> TuningJob:
        """Cancel a job; return it as it is then."""
        job: TuningJob = await self._call("cancel", job_id, seconds=_CANCEL_SECONDS)
        return job

    async def queued(self, tenant: str) -> int:
        """Return how many jobs of a tenant wait."""
        count: int = await self._call("queued", tenant)
        return count

    async def live(self, job_id: str) -> TuningJob | None:
        """Return the job with its live fields, if the scheduler knows it."""
        job: TuningJob | None = await self._call("live", job_id)
        return job

    async def events(self, job_id: str, after: int, timeout_s: float) -> list[Event[TuningJob]]:
        """Return the snapshots newer than event `after`; wait up to `timeout_s` for one."""
        seconds = timeout_s + _ANSWER_SECONDS
        events: list[Event[TuningJob]] = await self._call("events", job_id, after, timeout_s, seconds=seconds)
        return events

    async def status(self) -> SchedulerStatus:
        """Return the numbers of jobs and the tuners, for operators."""
        status: SchedulerStatus = await self._call("status")
        return status

    async def _call(self, method: str, *args: Any, seconds: float = _ANSWER_SECONDS) -> Any:
        try:
            async with asyncio.timeout(seconds):
                if self._actor is None:
                    self._actor = await asyncio.to_thread(ray.get_actor, SCHEDULER, NAMESPACE)
                return await getattr(self._actor, method).remote(*args)
        except RayTaskError as error:
            if isinstance(error.cause, TavError):
                raise error.cause from error
            raise
        except (RayError, ValueError, TimeoutError) as error:
            self._actor = None
            raise SchedulerAway(f"The scheduler does not answer ({type(error).__name__}).") from error
