"""/v1/batches."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Path

from services.api.callers import Who
from services.api.deps import Parts
from services.api.http.openapi import problems
from services.api.routes.jobs import cancelled
from tav_client.schemas import Batch, Label, TuningJob

_CANCELS_AT_A_TIME = 16

BatchId = Annotated[Label, Path()]


def router(parts: Parts) -> APIRouter:
    """The calls on batches: the jobs that carry one label."""
    routes = APIRouter(prefix="/batches", tags=["batches"])

    @routes.get("/{batch}", summary="Count a batch's jobs", responses=problems(404, 422, 503))
    async def get(batch: BatchId, caller: Who) -> Batch:
        """How many jobs it has, by status. The jobs themselves: `GET /v1/tuning-jobs?batch=…`."""
        return await asyncio.to_thread(parts.jobs.batch, batch, caller.scope)

    @routes.post("/{batch}/cancel", summary="Cancel a batch", responses=problems(404, 422, 503))
    async def cancel(batch: BatchId, caller: Who) -> Batch:
        """Cancels every job of it that is open; those that have ended stay as they are."""
        turns = asyncio.Semaphore(_CANCELS_AT_A_TIME)

        async def one(job: TuningJob) -> None:
            async with turns:
                await cancelled(job, parts.scheduler, caller)

        await asyncio.gather(*(one(job) for job in await asyncio.to_thread(parts.jobs.of_batch, batch, caller.scope)))
        return await asyncio.to_thread(parts.jobs.batch, batch, caller.scope)

    return routes
