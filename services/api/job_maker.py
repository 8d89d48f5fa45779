"""Creates tuning jobs: a request is checked whole before anything is stored, so that a refused one leaves nothing behind."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from typing import Any

from fastapi import Request

from services import logs
from services.api import clips
from services.api.backends import Backends
from services.api.callers import Caller
from services.api.clip_sources import ClipSources
from services.api.estimates import estimate_job
from services.api.http.errors import ApiError
from services.api.http.idempotency import KeyLocks, key_reused
from services.api.job_requests import check_job_request, model_name, read_job_request, same_request
from services.api.unread_texts import unread_in_job
from services.scratch import Scratch
from services.tuning.client import SchedulerAway
from tav_client.schemas import TuningJob, TuningJobCreate

log = logging.getLogger(__name__)

_THREADS = 4
"""Jobs that are created at the same time: each decodes a clip."""
_OPERATOR_MAX_PRIORITY = 100


class JobMaker:
    """Creates jobs, and tells the scheduler of them."""

    def __init__(self, backends: Backends) -> None:
        self._backends, self._settings = backends, backends.settings
        self._locks = KeyLocks()
        self._threads = ThreadPoolExecutor(_THREADS, "create-job")

    async def create(self, request: Request, key: str | None, caller: Caller) -> tuple[TuningJob, bool]:
        """Return the job that a request asks for, and whether it is new.

        Args:
            request: its body is read here.
            key: the idempotency key; an earlier job of the same key and request is returned.
            caller: whose job it is.

        Raises:
            ApiError: the request is refused; nothing was stored.
            InvalidClip: the clip cannot be read, or does not have the frames.
        """
        await self.check_queue(caller.owner())
        scratch = Scratch(self._settings.work_dir, "clip")
        try:
            job_request, path = await read_job_request(request, scratch.path, self._settings)
            check_job_request(job_request, self._settings, self._max_priority(caller))
        except BaseException:
            scratch.remove()
            raise
        # Shielded: it ends, and removes the scratch folder, even if the client disconnects.
        return await asyncio.shield(self._create(job_request, path, scratch, key, caller))

    async def retry(self, job: TuningJob, key: str | None, caller: Caller) -> tuple[TuningJob, bool]:
        """Return a job that asks for the same as an earlier one, and whether it is new.

        Raises:
            ApiError: the request is refused; nothing was stored.
        """
        await self.check_queue(job.tenant)
        async with self._locks.hold(key and f"{job.tenant}:{key}"):
            return await self._in_thread(self._retry_blocking, job, key, self._max_priority(caller))

    async def check_queue(self, tenant: str) -> None:
        """Refuse a job of a tenant that has as many queued as it may. Requests at the same moment do not see each other.

        Raises:
            ApiError: 429 `too_many_jobs`.
        """
        limit = self._settings.max_queued_per_tenant
        if limit is None:
            return
        try:
            queued = await self._backends.scheduler.queued(tenant)
        except SchedulerAway as error:
            log.warning("the number of queued jobs is not known, one more is accepted: %s", error)
            return
        if queued >= limit:
            raise ApiError(429, "too_many_jobs", f"{queued} jobs of yours wait, {limit} may: submit more when some have begun.")

    async def notify(self, job: TuningJob) -> None:
        """Tell the scheduler of a new job. A scheduler that is away finds the job's run later."""
        try:
            await self._backends.scheduler.notify(job)
        except SchedulerAway as error:
            log.warning("job %s waits until the scheduler reads the runs: %s", job.id, error)

    def _max_priority(self, caller: Caller) -> int:
        return _OPERATOR_MAX_PRIORITY if caller.operator else self._settings.max_priority

    async def _create(
        self, request: TuningJobCreate, path: Path | None, scratch: Scratch, key: str | None, caller: Caller
    ) -> tuple[TuningJob, bool]:
        async with self._locks.hold(key and f"{caller.owner()}:{key}"):
            return await self._in_thread(self._create_blocking, request, path, scratch, key, caller)

    async def _in_thread(self, create: Callable[..., tuple[TuningJob, bool]], *args: Any) -> tuple[TuningJob, bool]:
        job, new = await asyncio.get_running_loop().run_in_executor(self._threads, copy_context().run, create, *args)
        with logs.about(**logs.about_job(job)):
            log.info("job %s, %s, %s", job.id, job.model, "is queued" if new else "existed already")
        return job, new

    def _create_blocking(
        self, request: TuningJobCreate, path: Path | None, scratch: Scratch, key: str | None, caller: Caller
    ) -> tuple[TuningJob, bool]:
        objects, jobs, tenant = self._backends.objects, self._backends.jobs, caller.owner()
        try:
            if path is None:
                path = scratch.path / "clip"
                ClipSources(self._settings, objects, jobs).fetch(request.clip_uri or "", caller, path)
            sha256 = clips.digest(path)
            model = model_name(request, sha256)
            if key is not None and (existing := jobs.find(key, tenant)) is not None:
                same_names = (existing.clip.sha256, existing.model) == (sha256, model)
                if not same_names or not same_request(jobs.request(existing.id), request):
                    raise key_reused()
                return existing, False
            probe = clips.inspect(path, request, self._settings)
            base = request.base or self._settings.base
            fields = self._fields(request, base)
            clip = clips.store(path, probe, objects)
            return jobs.create(request, clip, base, model, key, tenant=tenant, **fields), True
        finally:
            scratch.remove()

    def _retry_blocking(self, job: TuningJob, key: str | None, max_priority: int) -> tuple[TuningJob, bool]:
        jobs = self._backends.jobs
        if key is not None and (existing := jobs.find(key, job.tenant)) is not None:
            if existing.retry_of != job.id:
                raise key_reused()
            return existing, False
        request = jobs.request(job.id)
        request = request.model_copy(update={"priority": min(request.priority, max_priority)})
        fields = self._fields(request, job.base)
        return jobs.create(request, job.clip, job.base, job.model, key, tenant=job.tenant, retry_of=job.id, **fields), True

    def _fields(self, request: TuningJobCreate, base: str) -> dict[str, Any]:
        """Return what a new job has from the service instead of from its request.

        Raises:
            ApiError: 422, it takes more memory than there is, or its texts are too long and may not be cut.
        """
        gpus = request.gpus or self._settings.tuner_workers
        return {
            "gpus": gpus,
            "estimate": estimate_job(request, base, gpus, self._settings),
            "unread": unread_in_job(request, base),
            "request_id": logs.ids().get("request_id"),
        }
