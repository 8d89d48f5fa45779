"""How the gateway asks the scheduler. The scheduler may be away; jobs stay queued in the runs meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

import ray
from ray.exceptions import RayError, RayTaskError

from services.runtime import NAMESPACE, SCHEDULER
from tav.errors import TavError
from tav_client.schemas import TuningJob

_ANSWER_SECONDS = 5.0


class SchedulerAway(Exception):
    """The scheduler does not run, or does not answer in time."""


class SchedulerLink(Protocol):
    """The scheduler's methods; each may raise `SchedulerAway`."""

    async def notify(self, job: TuningJob) -> None:
        """A job has been added."""
        ...

    async def cancel(self, job_id: str) -> TuningJob:
        """Cancel a job; the job as it is then."""
        ...

    async def queued(self, tenant: str) -> int:
        """How many jobs of a tenant wait."""
        ...

    async def live(self, job_id: str) -> TuningJob | None:
        """The job with its live fields, if the scheduler knows it."""
        ...

    async def events(self, job_id: str, after: int, timeout_s: float) -> list[tuple[int, TuningJob]]:
        """Snapshots newer than event `after`; waits up to `timeout_s` for one."""
        ...

    async def status(self) -> dict[str, Any]:
        """For operators."""
        ...


class RayScheduler:
    """The scheduler as a named Ray actor."""

    def __init__(self, name: str = SCHEDULER, namespace: str = NAMESPACE) -> None:
        self._name, self._namespace = name, namespace
        self._actor: Any = None

    async def notify(self, job: TuningJob) -> None:
        """See `SchedulerLink`."""
        await self._ask("notify", job)

    async def cancel(self, job_id: str) -> TuningJob:
        """See `SchedulerLink`."""
        job: TuningJob = await self._ask("cancel", job_id, seconds=30.0)
        return job

    async def queued(self, tenant: str) -> int:
        """See `SchedulerLink`."""
        count: int = await self._ask("queued", tenant)
        return count

    async def live(self, job_id: str) -> TuningJob | None:
        """See `SchedulerLink`."""
        job: TuningJob | None = await self._ask("live", job_id)
        return job

    async def events(self, job_id: str, after: int, timeout_s: float) -> list[tuple[int, TuningJob]]:
        """See `SchedulerLink`."""
        news: list[tuple[int, TuningJob]] = await self._ask(
            "events", job_id, after, timeout_s, seconds=timeout_s + _ANSWER_SECONDS
        )
        return news

    async def status(self) -> dict[str, Any]:
        """See `SchedulerLink`."""
        status: dict[str, Any] = await self._ask("status")
        return status

    async def _ask(self, method: str, *args: Any, seconds: float = _ANSWER_SECONDS) -> Any:
        try:
            async with asyncio.timeout(seconds):
                if self._actor is None:
                    self._actor = await asyncio.to_thread(ray.get_actor, self._name, self._namespace)
                return await getattr(self._actor, method).remote(*args)
        except RayTaskError as error:
            if isinstance(error.cause, TavError):
                raise error.cause from error
            raise
        except (RayError, ValueError, TimeoutError) as error:
            self._actor = None
            raise SchedulerAway(f"The scheduler does not answer ({type(error).__name__}).") from error
