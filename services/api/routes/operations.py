"""Is it up, and is it ready?"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from fastapi import APIRouter

from services.api.deps import Parts
from services.api.http.errors import unavailable
from services.api.http.openapi import problems
from services.tuning.client import SchedulerAway
from tav.errors import TavError

_SECONDS = 5.0


def router(parts: Parts) -> APIRouter:
    """The calls for operators; none needs a key."""
    routes = APIRouter(tags=["operations"])

    @routes.get("/healthz", summary="The gateway runs")
    async def healthz() -> dict[str, str]:
        """Answers as soon as the gateway runs, whatever else does."""
        return {"status": "ok"}

    @routes.get("/readyz", summary="Everything that is needed answers", responses=problems(503))
    async def readyz() -> dict[str, str]:
        """Storage, MLflow and the scheduler. A sampler scaled to zero is ready."""
        checks: dict[str, Awaitable[object]] = {
            "S3": asyncio.to_thread(lambda: next(iter(parts.objects.list("clips/")), None)),
            "MLflow": asyncio.to_thread(parts.jobs.list, None, 1),
            "the scheduler": parts.scheduler.status(),
        }
        answers = await asyncio.gather(*(_answers(check) for check in checks.values()))
        silent = [name for name, answers_it in zip(checks, answers, strict=True) if not answers_it]
        if silent:
            raise unavailable("not_ready", f"The service is not ready: {' and '.join(silent)} did not answer. Ask again.")
        return {"status": "ready"}

    return routes


async def _answers(check: Awaitable[object]) -> bool:
    try:
        async with asyncio.timeout(_SECONDS):
            await check
    except (TavError, SchedulerAway, TimeoutError):
        return False
    return True
