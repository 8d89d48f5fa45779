"""/v1/tuning-jobs."""

from __future__ import annotations

import asyncio
import logging
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse

from services.api import bodies, clips
from services.api.errors import ApiError, invalid
from services.api.events import follow, overlaid
from services.api.idempotency import IdempotencyKey, KeyLocks, checked_key, key_reused
from services.api.openapi import job_body, problems
from services.api.parts import Parts
from services.api.scheduler import SchedulerAway
from tav_client.schemas import JobStatus, ModelName, Page, TuningJob, TuningJobCreate

log = logging.getLogger(__name__)

_CREATES_AT_A_TIME = 4


class JobMaker:
    """Makes a job of a request, or leaves nothing behind."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._locks = KeyLocks()
        self._threads = ThreadPoolExecutor(_CREATES_AT_A_TIME, "creating")

    async def make(self, request: Request, key: str | None) -> tuple[TuningJob, bool]:
        """The job, and whether it is new."""
        settings = self._parts.settings
        settings.work_dir.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="clip-", dir=settings.work_dir))
        try:
            wanted, path = await self._read(request, folder)
            clips.check_request(wanted, settings)
        except BaseException:
            shutil.rmtree(folder)
            raise
        return await asyncio.shield(self._create(wanted, path, folder, key))  # goes on for a client that has gone

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
        self, wanted: TuningJobCreate, path: Path | None, folder: Path, key: str | None
    ) -> tuple[TuningJob, bool]:
        async with self._locks.hold(key):
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, self._create_now, wanted, path, folder, key)

    def _create_now(self, wanted: TuningJobCreate, path: Path | None, folder: Path, key: str | None) -> tuple[TuningJob, bool]:
        settings, objects, jobs = self._parts.settings, self._parts.objects, self._parts.jobs
        try:
            if path is None:
                path = folder / "clip"
                clips.fetch(wanted.clip_uri or "", objects, settings, path)
            sha256 = clips.digest(path)
            model = clips.model_name(wanted, sha256)
            if key is not None and (made := jobs.find(key)) is not None:
                if (made.clip.sha256, made.model) != (sha256, model) or not _same(jobs.request(made.id), wanted):
                    raise key_reused()
                return made, False
            found = clips.check(path, wanted, settings)
            clip = clips.store(path, found, objects)
            return jobs.create(wanted, clip, wanted.base or settings.base, model, key), True
        finally:
            shutil.rmtree(folder)


def _same(made: TuningJobCreate, wanted: TuningJobCreate) -> bool:
    """Whether both ask for the same, however clip and model were named."""
    named = {"clip_uri", "model"}
    return made.model_dump(exclude=named) == wanted.model_dump(exclude=named)


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
            **problems(403, 409, 413, 415, 422, 503),
            200: {"model": TuningJob, "description": "Made before, by this key"},
        },
        openapi_extra=job_body(),
    )
    async def create(request: Request, response: Response, key: IdempotencyKey = None) -> TuningJob:
        """The clip is looked at before the job is made; a refused request leaves nothing behind."""
        job, new = await maker.make(request, checked_key(key))
        if new:
            response.headers["Location"] = f"/v1/tuning-jobs/{job.id}"
            try:
                await parts.scheduler.notify(job)
            except SchedulerAway as error:
                log.warning("Job %s waits for the scheduler to look at the runs: %s", job.id, error)
            return job
        response.status_code = 200
        return await overlaid(job, parts.scheduler)

    @routes.get("", summary="List tuning jobs", responses=problems(422, 503))
    async def list_jobs(
        after: Annotated[str | None, Query(max_length=512, description="The former page's `next_cursor`.")] = None,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        status: JobStatus | None = None,
        model: Annotated[ModelName | None, Query()] = None,
    ) -> Page[TuningJob]:
        """Newest first."""
        page = await asyncio.to_thread(parts.jobs.list, after, limit, status, model)
        page.data = await asyncio.gather(*(overlaid(job, parts.scheduler) for job in page.data))
        return page

    @routes.get("/{job_id}", summary="Get a tuning job", responses=problems(404, 503))
    async def get(job_id: str) -> TuningJob:
        """The job as it is now."""
        return await overlaid(await asyncio.to_thread(parts.jobs.get, job_id), parts.scheduler)

    @routes.get(
        "/{job_id}/events",
        summary="Follow a tuning job",
        response_class=StreamingResponse,
        responses={200: {"content": {"text/event-stream": {}}}, **problems(404, 503)},
    )
    async def events(job_id: str, last: Annotated[str | None, Header(alias="Last-Event-ID")] = None) -> StreamingResponse:
        """Server-sent events named `job`, each a whole `TuningJob`; the stream ends after the final one."""
        job = await asyncio.to_thread(parts.jobs.get, job_id)
        after = int(last) if last and last.isascii() and last.isdigit() and len(last) < 19 else None
        return StreamingResponse(
            follow(job, after, parts.scheduler, parts.jobs),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )

    @routes.post("/{job_id}/cancel", summary="Cancel a tuning job", responses=problems(404, 409, 503))
    async def cancel(job_id: str) -> TuningJob:
        """A queued job is cancelled at once, a running one at its next step."""
        job = await asyncio.to_thread(parts.jobs.get, job_id)
        if not job.status.final:
            try:
                job = await parts.scheduler.cancel(job_id)
            except SchedulerAway as error:
                detail = "The scheduler, which alone cancels jobs, does not answer now: ask again."
                raise ApiError(503, "not_ready", detail) from error
        if job.status in (JobStatus.succeeded, JobStatus.failed):
            raise ApiError(409, "job_not_cancellable", f"Job {job_id} has {job.status}: there is nothing left to cancel.")
        return job

    return routes
