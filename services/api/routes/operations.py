"""/healthz and /readyz: whether the service is up, and ready. No call needs a key."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from fastapi import APIRouter

from services.api.deps import JobStoreDep, ObjectStoreDep, SchedulerDep
from services.api.http.errors import unavailable
from services.api.http.openapi import problems
from services.tuning.client import SchedulerAway
from tav.errors import TavError

router = APIRouter(tags=["operations"])

_TIMEOUT_SECONDS = 5.0


@router.get("/healthz", summary="The gateway runs")
async def healthz() -> dict[str, str]:
    """Answers as soon as the gateway runs, whatever else does."""
    return {"status": "ok"}


@router.get("/readyz", summary="Everything that is needed answers", responses=problems(503))
async def readyz(objects: ObjectStoreDep, jobs: JobStoreDep, scheduler: SchedulerDep) -> dict[str, str]:
    """Storage, MLflow and the scheduler. A sampler scaled to zero is ready."""
    checks: dict[str, Awaitable[object]] = {
        "S3": asyncio.to_thread(lambda: next(iter(objects.list("clips/")), None)),
        "MLflow": asyncio.to_thread(jobs.list, None, 1),
        "the scheduler": scheduler.status(),
    }
    results = await asyncio.gather(*(_responds(check) for check in checks.values()))
    silent = [name for name, responds in zip(checks, results, strict=True) if not responds]
    if silent:
        raise unavailable("not_ready", f"The service is not ready: {' and '.join(silent)} did not answer. Ask again.")
    return {"status": "ready"}


async def _responds(check: Awaitable[object]) -> bool:
    try:
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            await check
    except (TavError, SchedulerAway, TimeoutError):
        return False
    return True
