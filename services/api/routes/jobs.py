"""/v1/tuning-jobs."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse

from registry.removal import Removal
from registry.tenants import called
from services.api.callers import Caller
from services.api.deps import (
    CurrentCaller,
    JobMakerDep,
    JobStoreDep,
    MetricStoreDep,
    ObjectStoreDep,
    SchedulerDep,
    SettingsDep,
    VersionStoreDep,
    VideoDriverDep,
)
from services.api.events import event_number, event_stream, job_events, live_job
from services.api.http.errors import ApiError
from services.api.http.idempotency import IdempotencyKey, checked_key
from services.api.http.openapi import job_body, problems
from services.api.job_logs import tail, whole
from services.api.routes.models import refuse_in_use
from services.tuning.client import SchedulerAway, SchedulerClient
from tav_client.schemas import JobDeleted, JobMetrics, JobStatus, Label, ModelName, Page, TuningJob

router = APIRouter(prefix="/tuning-jobs", tags=["tuning jobs"])

_EXISTING: dict[str, Any] = {"model": TuningJob, "description": "Made before, by this key"}


@router.post(
    "",
    status_code=201,
    response_model=TuningJob,
    summary="Submit a tuning job",
    responses={**problems(403, 409, 413, 415, 422, 429, 503), 200: _EXISTING},
    openapi_extra=job_body(),
)
async def create_job(
    request: Request,
    response: Response,
    maker: JobMakerDep,
    scheduler: SchedulerDep,
    caller: CurrentCaller,
    key: IdempotencyKey = None,
) -> TuningJob:
    """The clip is looked at before the job is made; a refused request leaves nothing behind."""
    job, new = await maker.create(request, checked_key(key), caller)
    if new:
        response.headers["Location"] = f"/v1/tuning-jobs/{job.id}"
        await maker.notify(job)
        return job
    response.status_code = 200
    return await live_job(job, scheduler)


@router.get("", summary="List tuning jobs", responses=problems(422, 503))
async def list_jobs(
    request: Request,
    jobs: JobStoreDep,
    scheduler: SchedulerDep,
    caller: CurrentCaller,
    after: Annotated[str | None, Query(max_length=512, description="The former page's `next_cursor`.")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    status: JobStatus | None = None,
    model: Annotated[ModelName | None, Query()] = None,
    batch: Annotated[Label | None, Query()] = None,
) -> Page[TuningJob]:
    """Newest first. `metadata.KEY=VALUE`, as often as wanted, leaves out jobs without that."""
    metadata = _metadata(request)
    page = await asyncio.to_thread(jobs.list, after, limit, status, model, tenant=caller.scope, batch=batch, metadata=metadata)
    page.data = await asyncio.gather(*(live_job(job, scheduler) for job in page.data))
    return page


def _metadata(request: Request) -> dict[str, str]:
    prefix = "metadata."
    return {name.removeprefix(prefix): value for name, value in request.query_params.items() if name.startswith(prefix)}


@router.get("/{job_id}", summary="Get a tuning job", responses=problems(404, 503))
async def get_job(job_id: str, jobs: JobStoreDep, scheduler: SchedulerDep, caller: CurrentCaller) -> TuningJob:
    """The job as it is now."""
    return await live_job(await asyncio.to_thread(jobs.get, job_id, caller.scope), scheduler)


@router.get(
    "/{job_id}/events",
    summary="Follow a tuning job",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {}}}, **problems(404, 503)},
)
async def follow_job(
    job_id: str,
    jobs: JobStoreDep,
    scheduler: SchedulerDep,
    caller: CurrentCaller,
    last_event_id: Annotated[str | None, Header(alias="Last-Event-ID")] = None,
) -> StreamingResponse:
    """Server-sent events named `job`, each a whole `TuningJob`; the stream ends after the final one."""
    job = await asyncio.to_thread(jobs.get, job_id, caller.scope)
    return event_stream(job_events(job, event_number(last_event_id), scheduler, jobs))


@router.get("/{job_id}/metrics", summary="Get a tuning job's metrics", responses=problems(404, 422, 503))
async def get_metrics(
    job_id: str,
    jobs: JobStoreDep,
    metrics: MetricStoreDep,
    caller: CurrentCaller,
    points: Annotated[int, Query(ge=2, le=10_000, description="Of each curve, at most; evenly spread over its steps.")] = 1000,
) -> JobMetrics:
    """Its curves, by the metric's name: `loss` after every step, scores of its samples; some seconds behind while it runs."""
    job = await asyncio.to_thread(jobs.get, job_id, caller.scope)
    return await asyncio.to_thread(metrics.get, job.id, points)


@router.post("/{job_id}/cancel", summary="Cancel a tuning job", responses=problems(404, 409, 503))
async def cancel_job(job_id: str, jobs: JobStoreDep, scheduler: SchedulerDep, caller: CurrentCaller) -> TuningJob:
    """A queued job is cancelled at once, a running one at its next step."""
    job = await cancel_open_job(await asyncio.to_thread(jobs.get, job_id, caller.scope), scheduler, caller)
    if job.status in (JobStatus.succeeded, JobStatus.failed):
        raise ApiError(409, "job_not_cancellable", f"Job {job_id} has {job.status}: there is nothing left to cancel.")
    return job


async def cancel_open_job(job: TuningJob, scheduler: SchedulerClient, caller: Caller) -> TuningJob:
    """Cancel a job if it is open; return it as it is then.

    Raises:
        ApiError: 503, the scheduler does not answer.
    """
    if job.status.final:
        return job
    try:
        cancelled = await scheduler.cancel(job.id)
    except SchedulerAway as error:
        detail = "The scheduler, which alone cancels jobs, does not answer now: ask again."
        raise ApiError(503, "not_ready", detail) from error
    caller.audit(f"cancelled tuning job {job.id}", job.tenant)
    return cancelled


@router.post(
    "/{job_id}/retry",
    status_code=201,
    summary="Retry a tuning job",
    responses={**problems(404, 409, 422, 429, 503), 200: _EXISTING},
)
async def retry_job(
    job_id: str,
    response: Response,
    jobs: JobStoreDep,
    maker: JobMakerDep,
    scheduler: SchedulerDep,
    caller: CurrentCaller,
    key: IdempotencyKey = None,
) -> TuningJob:
    """A new job that asks for the same as one that failed or was cancelled, and says so in `retry_of`."""
    job = await asyncio.to_thread(jobs.get, job_id, caller.scope)
    if job.status not in (JobStatus.failed, JobStatus.cancelled):
        raise ApiError(409, "job_not_retryable", f"Job {job_id} is {job.status}: only a failed or cancelled one is retried.")
    retry, new = await maker.retry(job, checked_key(key), caller)
    response.headers["Location"] = f"/v1/tuning-jobs/{retry.id}"
    if new:
        await maker.notify(retry)
        return retry
    response.status_code = 200
    return await live_job(retry, scheduler)


@router.get(
    "/{job_id}/logs",
    summary="Read a tuning job's log",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/plain": {}}}, **problems(404, 422, 503)},
)
async def read_job_log(
    job_id: str,
    jobs: JobStoreDep,
    caller: CurrentCaller,
    follow: Annotated[bool, Query(description="Go on until the job has ended.")] = False,
) -> StreamingResponse:
    """What its tuners said while they worked on it, attempt after attempt; some seconds behind while it runs."""
    job = await asyncio.to_thread(jobs.get, job_id, caller.scope)
    text = tail(job, jobs) if follow else whole(await asyncio.to_thread(jobs.logs, job_id))
    return StreamingResponse(text, media_type="text/plain", headers={"Cache-Control": "no-store"})


@router.delete("/{job_id}", summary="Delete a tuning job", responses=problems(404, 409, 503))
async def delete_job(
    job_id: str,
    jobs: JobStoreDep,
    versions: VersionStoreDep,
    objects: ObjectStoreDep,
    driver: VideoDriverDep,
    settings: SettingsDep,
    caller: CurrentCaller,
) -> JobDeleted:
    """The job with its run, its version, its videos, and its clip unless another job has the same."""
    job = await asyncio.to_thread(jobs.get, job_id, caller.scope)
    if not job.status.final:
        raise ApiError(409, "job_not_deletable", f"Job {job_id} is {job.status}: cancel it, then delete it when it has ended.")
    if (version := await asyncio.to_thread(versions.of_job, job_id)) is not None:
        ref = f"{version.name}/{version.version}"
        refuse_in_use(driver, ref, called(ref, caller.viewer))
    await asyncio.to_thread(Removal(settings, objects).job, job)
    caller.audit(f"deleted tuning job {job_id}", job.tenant)
    return JobDeleted(id=job_id)
