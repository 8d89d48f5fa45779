"""/v1/batches: the jobs that carry one label."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Path

from services.api.deps import CurrentCaller, JobStoreDep, SchedulerDep
from services.api.http.openapi import problems
from services.api.routes.jobs import cancel_open_job
from tav_client.schemas import Batch, Label, TuningJob

router = APIRouter(prefix="/batches", tags=["batches"])

_CONCURRENT_CANCELS = 16

BatchId = Annotated[Label, Path()]


@router.get("/{batch}", summary="Count a batch's jobs", responses=problems(404, 422, 503))
async def count_batch(batch: BatchId, jobs: JobStoreDep, caller: CurrentCaller) -> Batch:
    """How many jobs it has, by status. The jobs themselves: `GET /v1/tuning-jobs?batch=…`."""
    return await asyncio.to_thread(jobs.batch, batch, caller.scope)


@router.post("/{batch}/cancel", summary="Cancel a batch", responses=problems(404, 422, 503))
async def cancel_batch(batch: BatchId, jobs: JobStoreDep, scheduler: SchedulerDep, caller: CurrentCaller) -> Batch:
    """Cancels every job of it that is open; those that have ended stay as they are."""
    semaphore = asyncio.Semaphore(_CONCURRENT_CANCELS)

    async def cancel(job: TuningJob) -> None:
        async with semaphore:
            await cancel_open_job(job, scheduler, caller)

    await asyncio.gather(*(cancel(job) for job in await asyncio.to_thread(jobs.of_batch, batch, caller.scope)))
    return await asyncio.to_thread(jobs.batch, batch, caller.scope)
