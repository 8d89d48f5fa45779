"""/v1/tuning-jobs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse

from registry.removal import Removal
from registry.tenants import called
from services import logs
from services.api import clips
from services.api.callers import Caller, Who
from services.api.deps import Parts
from services.api.events import event_number, follow, overlaid
from services.api.http import bodies
from services.api.http.errors import ApiError, invalid
from services.api.http.idempotency import IdempotencyKey, KeyLocks, checked_key, key_reused
from services.api.http.openapi import job_body, problems
from services.api.logs import once, tail
from services.api.routes.estimates import expected
from services.api.routes.models import refuse_while_driven
from services.api.sources import Sources
from services.api.words import unread_in_job
from services.scratch import Scratch
from services.tuning.client import SchedulerAway, SchedulerLink
from tav_client.schemas import JobDeleted, JobStatus, Label, ModelName, Page, TuningJob, TuningJobCreate

log = logging.getLogger(__name__)

_CREATES_AT_A_TIME = 4
_HIGHEST = 100
"""Priority, of an operator's jobs."""
_MADE_BEFORE: dict[str, Any] = {"model": TuningJob, "description": "Made before, by this key"}


class JobMaker:
    """Makes a job of a request, or leaves nothing behind."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._locks = KeyLocks()
        self._threads = ThreadPoolExecutor(_CREATES_AT_A_TIME, "creating")

    async def make(self, request: Request, key: str | None, caller: Caller) -> tuple[TuningJob, bool]:
        """The job, and whether it is new."""
        tenant = caller.one()
        await self.check_room(tenant)
        settings = self._parts.settings
        scratch = Scratch(settings.work_dir, "clip")
        try:
            wanted, path = await self._read(request, scratch.path)
            clips.check_request(wanted, settings)
            if wanted.priority > (ceiling := self._ceiling(caller)):
                raise invalid(f"Your jobs may have a priority of {ceiling} at most: ask for less.", "priority")
        except BaseException:
            scratch.remove()
            raise
        work = self._create(wanted, path, scratch, key, caller)
        return await asyncio.shield(work)  # goes on for a client that has gone

    async def retry(self, job: TuningJob, key: str | None, caller: Caller) -> tuple[TuningJob, bool]:
        """A new job that asks for the same, and whether it is new."""
        await self.check_room(job.tenant)
        async with self._locks.hold(key and f"{job.tenant}:{key}"):
            return await self._in_thread(self._retry_now, job, key, self._ceiling(caller))

    def _ceiling(self, caller: Caller) -> int:
        return _HIGHEST if caller.operator else self._parts.settings.max_priority

    def _retry_now(self, job: TuningJob, key: str | None, ceiling: int) -> tuple[TuningJob, bool]:
        jobs = self._parts.jobs
        if key is not None and (made := jobs.find(key, job.tenant)) is not None:
            if made.retry_of != job.id:
                raise key_reused()
            return made, False
        wanted = jobs.request(job.id)
        wanted = wanted.model_copy(update={"priority": min(wanted.priority, ceiling)})
        gpus = wanted.gpus or self._parts.settings.tuner_workers
        estimate = expected(wanted.model_copy(update={"base": job.base}), self._parts.settings, gpus)
        asked = partial(
            jobs.create,
            retry_of=job.id,
            estimate=estimate,
            unread=unread_in_job(wanted, job.base),
            request_id=logs.ids().get("request_id"),
        )
        return asked(wanted, job.clip, job.base, job.model, key, tenant=job.tenant, gpus=gpus), True

    async def check_room(self, tenant: str) -> None:
        """Refuse a job more than may wait. Jobs that come at the same moment are not told from each other."""
        limit = self._parts.settings.max_queued_per_tenant
        if limit is None:
            return
        try:
            waiting = await self._parts.scheduler.queued(tenant)
        except SchedulerAway as error:
            log.warning("Nobody says how many jobs wait, so one more is taken: %s", error)
            return
        if waiting >= limit:
            raise ApiError(
                429, "too_many_jobs", f"{waiting} jobs of yours wait, {limit} may: submit more when some have begun."
            )

    async def announce(self, job: TuningJob) -> None:
        """Tell the scheduler of a new job; where it is away, it will find the job's run."""
        try:
            await self._parts.scheduler.notify(job)
        except SchedulerAway as error:
            log.warning("Job %s waits for the scheduler to look at the runs: %s", job.id, error)

    async def _read(self, request: Request, folder: Path) -> tuple[TuningJobCreate, Path | None]:
        kind = bodies.media_type(request)
        if kind == "application/json":
            wanted, path = await bodies.read_json(request, TuningJobCreate), None
        elif kind == "multipart/form-data":
            limit = self._parts.settings.clip_limits.max_bytes
            wanted, path = await bodies.read_upload(request, TuningJobCreate, folder, limit)
        else:
            raise bodies.unsupported_job_body()
        if path is None and wanted.clip_uri is None:
            raise invalid("There is no clip: upload it as the part 'clip', or name it with clip_uri.", "clip", kind="missing")
        if path is not None and wanted.clip_uri is not None:
            raise invalid("There are two clips: upload one as the part 'clip', or name one with clip_uri.", "clip_uri")
        return wanted, path

    async def _create(
        self, wanted: TuningJobCreate, path: Path | None, scratch: Scratch, key: str | None, caller: Caller
    ) -> tuple[TuningJob, bool]:
        async with self._locks.hold(key and f"{caller.one()}:{key}"):
            return await self._in_thread(self._create_now, wanted, path, scratch, key, caller)

    async def _in_thread(self, make: Callable[..., tuple[TuningJob, bool]], *args: Any) -> tuple[TuningJob, bool]:
        job, new = await asyncio.get_running_loop().run_in_executor(self._threads, copy_context().run, make, *args)
        with logs.about(**logs.about_job(job)):
            log.info("job %s, %s, %s", job.id, job.model, "is queued" if new else "was made before")
        return job, new

    def _create_now(
        self, wanted: TuningJobCreate, path: Path | None, scratch: Scratch, key: str | None, caller: Caller
    ) -> tuple[TuningJob, bool]:
        settings, objects, jobs, tenant = self._parts.settings, self._parts.objects, self._parts.jobs, caller.one()
        try:
            if path is None:
                path = scratch.path / "clip"
                Sources(settings, objects, jobs).fetch(wanted.clip_uri or "", caller, path)
            sha256 = clips.digest(path)
            model = clips.model_name(wanted, sha256)
            if key is not None and (made := jobs.find(key, tenant)) is not None:
                if (made.clip.sha256, made.model) != (sha256, model) or not _same(jobs.request(made.id), wanted):
                    raise key_reused()
                return made, False
            found = clips.check(path, wanted, settings)
            base, gpus = wanted.base or settings.base, wanted.gpus or settings.tuner_workers
            estimate, unread = expected(wanted, settings, gpus), unread_in_job(wanted, base)
            clip = clips.store(path, found, objects)
            asked = partial(jobs.create, estimate=estimate, unread=unread, request_id=logs.ids().get("request_id"))
            return asked(wanted, clip, base, model, key, tenant=tenant, gpus=gpus), True
        finally:
            scratch.remove()


def _same(made: TuningJobCreate, wanted: TuningJobCreate) -> bool:
    """Whether both ask for the same, however clip and model were named."""
    named = {"clip_uri", "model"}
    return made.model_dump(exclude=named) == wanted.model_dump(exclude=named)


def _metadata(request: Request) -> dict[str, str]:
    prefix = "metadata."
    return {name.removeprefix(prefix): value for name, value in request.query_params.items() if name.startswith(prefix)}


async def cancelled(job: TuningJob, scheduler: SchedulerLink, caller: Caller) -> TuningJob:
    """The job, cancelled if it was open."""
    if job.status.final:
        return job
    try:
        ended = await scheduler.cancel(job.id)
    except SchedulerAway as error:
        detail = "The scheduler, which alone cancels jobs, does not answer now: ask again."
        raise ApiError(503, "not_ready", detail) from error
    caller.did(f"cancelled tuning job {job.id}", job.tenant)
    return ended


def router(parts: Parts) -> APIRouter:
    """The calls on tuning jobs."""
    routes = APIRouter(prefix="/tuning-jobs", tags=["tuning jobs"])
    maker = JobMaker(parts)

    @routes.post(
        "",
        status_code=201,
        response_model=TuningJob,
        summary="Submit a tuning job",
        responses={
            **problems(403, 409, 413, 415, 422, 429, 503),
            200: _MADE_BEFORE,
        },
        openapi_extra=job_body(),
    )
    async def create(request: Request, response: Response, caller: Who, key: IdempotencyKey = None) -> TuningJob:
        """The clip is looked at before the job is made; a refused request leaves nothing behind."""
        job, new = await maker.make(request, checked_key(key), caller)
        if new:
            response.headers["Location"] = f"/v1/tuning-jobs/{job.id}"
            await maker.announce(job)
            return job
        response.status_code = 200
        return await overlaid(job, parts.scheduler)

    @routes.get("", summary="List tuning jobs", responses=problems(422, 503))
    async def list_jobs(
        request: Request,
        caller: Who,
        after: Annotated[str | None, Query(max_length=512, description="The former page's `next_cursor`.")] = None,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        status: JobStatus | None = None,
        model: Annotated[ModelName | None, Query()] = None,
        batch: Annotated[Label | None, Query()] = None,
    ) -> Page[TuningJob]:
        """Newest first. `metadata.KEY=VALUE`, as often as wanted, leaves out jobs without that."""
        metadata = _metadata(request)
        page = await asyncio.to_thread(
            parts.jobs.list, after, limit, status, model, tenant=caller.scope, batch=batch, metadata=metadata
        )
        page.data = await asyncio.gather(*(overlaid(job, parts.scheduler) for job in page.data))
        return page

    @routes.get("/{job_id}", summary="Get a tuning job", responses=problems(404, 503))
    async def get(job_id: str, caller: Who) -> TuningJob:
        """The job as it is now."""
        return await overlaid(await asyncio.to_thread(parts.jobs.get, job_id, caller.scope), parts.scheduler)

    @routes.get(
        "/{job_id}/events",
        summary="Follow a tuning job",
        response_class=StreamingResponse,
        responses={200: {"content": {"text/event-stream": {}}}, **problems(404, 503)},
    )
    async def events(
        job_id: str, caller: Who, last: Annotated[str | None, Header(alias="Last-Event-ID")] = None
    ) -> StreamingResponse:
        """Server-sent events named `job`, each a whole `TuningJob`; the stream ends after the final one."""
        job = await asyncio.to_thread(parts.jobs.get, job_id, caller.scope)
        return StreamingResponse(
            follow(job, event_number(last), parts.scheduler, parts.jobs),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )

    @routes.post("/{job_id}/cancel", summary="Cancel a tuning job", responses=problems(404, 409, 503))
    async def cancel(job_id: str, caller: Who) -> TuningJob:
        """A queued job is cancelled at once, a running one at its next step."""
        job = await cancelled(await asyncio.to_thread(parts.jobs.get, job_id, caller.scope), parts.scheduler, caller)
        if job.status in (JobStatus.succeeded, JobStatus.failed):
            raise ApiError(409, "job_not_cancellable", f"Job {job_id} has {job.status}: there is nothing left to cancel.")
        return job

    @routes.post(
        "/{job_id}/retry",
        status_code=201,
        summary="Retry a tuning job",
        responses={**problems(404, 409, 422, 429, 503), 200: _MADE_BEFORE},
    )
    async def retry(job_id: str, response: Response, caller: Who, key: IdempotencyKey = None) -> TuningJob:
        """A new job that asks for the same as one that failed or was cancelled, and says so in `retry_of`."""
        job = await asyncio.to_thread(parts.jobs.get, job_id, caller.scope)
        if job.status not in (JobStatus.failed, JobStatus.cancelled):
            raise ApiError(
                409, "job_not_retryable", f"Job {job_id} is {job.status}: only a failed or cancelled one is retried."
            )
        made, new = await maker.retry(job, checked_key(key), caller)
        response.headers["Location"] = f"/v1/tuning-jobs/{made.id}"
        if new:
            await maker.announce(made)
            return made
        response.status_code = 200
        return await overlaid(made, parts.scheduler)

    @routes.get(
        "/{job_id}/logs",
        summary="Read a tuning job's log",
        response_class=StreamingResponse,
        responses={200: {"content": {"text/plain": {}}}, **problems(404, 422, 503)},
    )
    async def logs(
        job_id: str,
        caller: Who,
        follow: Annotated[bool, Query(description="Go on until the job has ended.")] = False,
    ) -> StreamingResponse:
        """What its tuners said while they worked on it, attempt after attempt; some seconds behind while it runs."""
        job = await asyncio.to_thread(parts.jobs.get, job_id, caller.scope)
        text = tail(job, parts.jobs) if follow else once(await asyncio.to_thread(parts.jobs.logs, job_id))
        return StreamingResponse(text, media_type="text/plain", headers={"Cache-Control": "no-store"})

    @routes.delete("/{job_id}", summary="Delete a tuning job", responses=problems(404, 409, 503))
    async def delete(job_id: str, caller: Who) -> JobDeleted:
        """The job with its run, its version, its videos, and its clip unless another job has the same."""
        job = await asyncio.to_thread(parts.jobs.get, job_id, caller.scope)
        if not job.status.final:
            raise ApiError(
                409, "job_not_deletable", f"Job {job_id} is {job.status}: cancel it, then delete it when it has ended."
            )
        if (made := await asyncio.to_thread(parts.versions.of_job, job_id)) is not None:
            ref = f"{made.name}/{made.version}"
            refuse_while_driven(parts, ref, called(ref, caller.viewer))
        await asyncio.to_thread(Removal(parts.settings, parts.objects).job, job)
        caller.did(f"deleted tuning job {job_id}", job.tenant)
        return JobDeleted(id=job_id)

    return routes
