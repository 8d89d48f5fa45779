"""Tuning jobs. A job is an MLflow run; there is no other job database.

A job is rebuilt from its run alone; the scheduler adds the live fields (step, loss, ETA). MLflow has no compare-and-set, so
only the scheduler changes statuses.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any

import numpy as np
from mlflow.entities import Run
from pydantic import ValidationError

from registry.errors import InvalidReference, NotFound
from registry.objects import ObjectStore
from registry.pictures import LOGGED, artifacts, contact_sheet
from registry.settings import RegistrySettings
from registry.tenants import DEFAULT_TENANT, TENANT
from registry.tracking import (
    REQUEST_ID,
    Runs,
    artifact_uri,
    join_tag,
    key_digest,
    now_ms,
    seconds,
    split_tag,
    tag_equals,
    tenant_of,
    unread_of,
    unread_tags,
)
from tav_client.schemas import (
    Batch,
    ClipInfo,
    Estimate,
    Failure,
    JobParams,
    JobPhase,
    JobStatus,
    Page,
    StoredFile,
    TuningJob,
    TuningJobCreate,
    TuningParams,
)

RUN_STATUS = {
    JobStatus.queued: "SCHEDULED",
    JobStatus.running: "RUNNING",
    JobStatus.succeeded: "FINISHED",
    JobStatus.failed: "FAILED",
    JobStatus.cancelled: "KILLED",
}
"""The one table of job status and MLflow run status."""

_JOB_STATUS = {run: job for job, run in RUN_STATUS.items()}
_KEY = "tav.idempotency_key"
_CANCEL = "tav.cancel"
_ESTIMATE = "tav.estimate"
_BATCH, _METADATA = "tav.batch", "tav.metadata."
_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")
_MANY = 100_000
_SEEN = 256


REACHED = ("phase", "step", "total_steps", "progress")
"""Fields that are stored of a job that failed or was cancelled: how far it came."""
_REACHED = "tav.reached"


def _reached_tag(reached: Mapping[str, Any] | None) -> dict[str, str]:
    return {} if reached is None else {_REACHED: json.dumps({name: reached[name] for name in REACHED})}


def _progress(status: JobStatus, tags: Mapping[str, str]) -> dict[str, Any]:
    """Return the fields that say how far a job is, as its run has them."""
    if status is JobStatus.succeeded:
        return {"progress": 1.0}
    if status is JobStatus.running:
        return {"phase": JobPhase(tags["tav.phase"]) if tags.get("tav.phase") else None}
    if status is JobStatus.queued or _REACHED not in tags:
        return {}
    reached = json.loads(tags[_REACHED])
    return reached | {"phase": JobPhase(reached["phase"]) if reached["phase"] else None}


def _key(idempotency_key: str, tenant: str) -> str:
    """Return a digest of a tenant's key: two tenants' keys never collide."""
    return key_digest(f"{tenant}\n{idempotency_key}")


class JobStore:
    """Tuning jobs. Methods block; a change is stored when they return."""

    def __init__(self, settings: RegistrySettings, objects: ObjectStore | None = None) -> None:
        self._runs = Runs(settings, "tuning", "job")
        self._objects = objects or ObjectStore(settings)
        self._seen = lru_cache(_SEEN)(self._runs.get)  # where a run's artifacts are never changes

    def create(
        self,
        request: TuningJobCreate,
        clip: ClipInfo,
        base: str,
        model: str,
        idempotency_key: str | None = None,
        *,
        tenant: str = DEFAULT_TENANT,
        gpus: int = 1,
        retry_of: str | None = None,
        estimate: Estimate | None = None,
        unread: Mapping[str, str] | None = None,
        request_id: str | None = None,
    ) -> TuningJob:
        """Store a new job, queued, with its clip and request among the run's artifacts.

        Args:
            request: as the user sent it.
            clip: the stored clip.
            base: to tune on: the request's, or the service's own.
            model: the name of the model that gets the version, as its tenant writes it.
            idempotency_key: lets `find` return the same job for a repeated request.
            tenant: whose job it is.
            gpus: number that tunes it together: the request's, or the service's own.
            retry_of: id of the job that this one repeats.
            estimate: of its memory and time.
            unread: what the base does not read of its texts, as far as that is known.
            request_id: of the call that creates it, for the log lines of all processes.
        """
        tags = {
            **split_tag("tav.request", request.model_dump_json(exclude_none=True)),
            "tav.clip": clip.model_dump_json(),
            "tav.base": base,
            "tav.model": model,
            "tav.caption": request.caption or "",
            "tav.clip_sha256": clip.sha256,
            "tav.gpus": str(gpus),
            TENANT: tenant,
            **({_BATCH: request.batch} if request.batch else {}),
            **({"tav.retry_of": retry_of} if retry_of else {}),
            **({_ESTIMATE: estimate.model_dump_json()} if estimate else {}),
            **({REQUEST_ID: request_id} if request_id else {}),
            **(unread_tags(unread) if unread else {}),
            **{_METADATA + key: value for key, value in request.metadata.items()},
            "mlflow.note.content": request.caption or "",
            "mlflow.source.name": "tav",
        }
        if idempotency_key is not None:
            tags[_KEY] = _key(idempotency_key, tenant)
        with self._runs.creating(model, tags) as run:
            self._objects.copy(clip.uri, artifact_uri(run, "source.mp4"))
            config = json.dumps(request.model_dump(mode="json"), indent=2, ensure_ascii=False).encode()
            self._objects.put_bytes(config, artifact_uri(run, "config.json"))
            params = request.params.model_dump(mode="json", exclude_none=True)
            if request.caption is not None:
                params["caption"] = request.caption
            self._runs.log(run.info.run_id, params={"base": base, **params})
            info = self._runs.set_status(run.info.run_id, RUN_STATUS[JobStatus.queued])
        return self._job(Run(info, run.data))

    def find(self, idempotency_key: str, tenant: str = DEFAULT_TENANT) -> TuningJob | None:
        """Return the newest job that the tenant created with a key."""
        run = next(self._runs.search([tag_equals(_KEY, _key(idempotency_key, tenant))]), None)
        return None if run is None else self._job(run)

    def get(self, job_id: str, tenant: str | None = None) -> TuningJob:
        """Return a job; another tenant's counts as missing."""
        job = self._job(self._runs.get(job_id))
        if tenant not in (None, job.tenant):
            raise NotFound("job", job_id)
        return job

    def request(self, job_id: str) -> TuningJobCreate:
        """Return the request that created a job."""
        return self._request(self._runs.get(job_id))

    def open(self, since: float = 0.0) -> list[TuningJob]:
        """Return all jobs created after `since` (UNIX seconds) that have not ended, oldest first."""
        return [self._job(run) for run in self._runs.open(begun="tav.attempt", since=since)]

    def deleted(self) -> Sequence[str]:
        """Return the ids of jobs whose run was deleted in MLflow before they had ended."""
        return self._runs.deleted()

    def list(
        self,
        after: str | None = None,
        limit: int = 20,
        status: JobStatus | None = None,
        model: str | None = None,
        *,
        tenant: str | None = None,
        batch: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Page[TuningJob]:
        """Return a page of the jobs that meet every condition, newest first."""
        for key in metadata or {}:
            if not _LABEL.fullmatch(key):
                raise InvalidReference(
                    f"{key[:80]!r} is no label: the keys of metadata have letters, digits, '.', '_' and '-'."
                )
        conditions = [tag_equals(_METADATA + key, value) for key, value in (metadata or {}).items()]
        if tenant is not None:
            conditions.append(tag_equals(TENANT, tenant))
        if batch is not None:
            conditions.append(tag_equals(_BATCH, batch))
        if status is not None:
            conditions.append(f"attributes.status = '{RUN_STATUS[status]}'")
        if model is not None:
            conditions.append(tag_equals("tav.model", model))
        jobs, cursor = self._runs.page(
            self._job, after, limit, conditions, keep=lambda job: status is None or job.status is status, tenant=tenant
        )
        return Page[TuningJob](data=jobs, next_cursor=cursor, has_more=cursor is not None)

    def of_batch(self, batch: str, tenant: str | None = None) -> Sequence[TuningJob]:
        """Return all jobs of a batch, newest first.

        Raises:
            NotFound: there are none.
        """
        jobs = self.list(limit=_MANY, batch=batch, tenant=tenant).data
        if not jobs:
            raise NotFound("batch", batch)
        return jobs

    def batch(self, batch: str, tenant: str | None = None) -> Batch:
        """Return a batch's jobs, counted by status."""
        jobs = self.of_batch(batch, tenant)
        counts = Counter(job.status for job in jobs)
        return Batch(id=batch, total=len(jobs), counts=counts, finished=all(job.status.final for job in jobs))

    def ended_before(self, when: float) -> Sequence[TuningJob]:
        """Return the jobs that ended before `when` (UNIX seconds), newest first."""
        ended = [f"attributes.end_time < {int(when * 1000)}", "attributes.end_time > 0"]
        return [job for job in map(self._job, self._runs.search(ended)) if job.status.final]

    def uses_clip(self, sha256: str, tenant: str | None = None) -> bool:
        """Return whether any job, or any of a tenant's, has that clip."""
        conditions = [tag_equals("tav.clip_sha256", sha256)]
        if tenant is not None:
            conditions.append(tag_equals(TENANT, tenant))
        return next(self._runs.search(conditions), None) is not None

    def delete(self, job_id: str) -> None:
        """Remove the run's artifacts, and then the run."""
        self._objects.delete_prefix(artifact_uri(self._runs.get(job_id), "log").removesuffix("log"))
        self._runs.delete(job_id)

    def start(self, job_id: str, attempt: int) -> None:
        """Record that a tuner starts the job, for the `attempt`-th time."""
        tags = {"tav.attempt": str(attempt), "tav.phase": JobPhase.preparing.value}
        if attempt == 1:
            tags["tav.started_at"] = str(now_ms())
        self._runs.log(job_id, tags=tags)
        self._runs.set_status(job_id, RUN_STATUS[JobStatus.running])

    def requeue(self, job_id: str, attempt: int, excused: int = 0) -> None:
        """Record that the job waits for a tuner again after an attempt without a result; `excused` attempts do not count."""
        self._runs.log(job_id, tags={"tav.attempt": str(attempt), "tav.excused": str(excused), "tav.phase": ""})
        self._runs.set_status(job_id, RUN_STATUS[JobStatus.queued])

    def set_phase(self, job_id: str, phase: JobPhase) -> None:
        """Record what the running job does."""
        self._runs.log(job_id, tags={"tav.phase": JobPhase(phase).value})

    def succeed(self, job_id: str, version: int) -> None:
        """Record that the job ended with a registered version."""
        self._runs.end(job_id, RUN_STATUS[JobStatus.succeeded], {"tav.version": str(version), "tav.phase": ""})

    def fail(
        self, job_id: str, failure: Failure, traceback: str | None = None, *, reached: Mapping[str, Any] | None = None
    ) -> None:
        """Record why the job ended and the phase and step it `reached`; the traceback becomes the artifact `traceback.txt`."""
        if traceback:
            with suppress(NotFound):  # the run was deleted
                self.log_bytes(job_id, traceback.encode(), "traceback.txt")
        tags = {"tav.error": failure.message, "tav.error_code": failure.code.value, "tav.phase": ""} | _reached_tag(reached)
        self._runs.end(job_id, RUN_STATUS[JobStatus.failed], tags)

    def request_cancel(self, job_id: str) -> None:
        """Record that the running job is to stop."""
        self._runs.log(job_id, tags={_CANCEL: "requested"})

    def set_caption(self, job_id: str, caption: str) -> None:
        """Record the captioner's caption of a job that came without."""
        self._runs.log(job_id, tags={"tav.caption": caption, "mlflow.note.content": f"{caption} (automatic caption)"})

    def set_unread(self, job_id: str, unread: Mapping[str, str]) -> None:
        """Record what the base does not read of the job's texts."""
        self._runs.log(job_id, tags=unread_tags(unread))

    def set_estimate(self, job_id: str, estimate: Estimate) -> None:
        """Record the estimate of the job's tuner."""
        self._runs.log(job_id, tags={_ESTIMATE: estimate.model_dump_json()})

    def cancel(self, job_id: str, *, reached: Mapping[str, Any] | None = None) -> None:
        """Record that a cancel call, or the deletion of its run, ended the job, and the phase and step it `reached`."""
        self._runs.end(job_id, RUN_STATUS[JobStatus.cancelled], {"tav.phase": ""} | _reached_tag(reached))

    def log_metrics(self, job_id: str, points: Iterable[tuple[str, float, int, int]]) -> None:
        """Log metrics as (key, value, step, UNIX milliseconds); collect those of some seconds before calling."""
        self._runs.log(job_id, metrics=points)

    def log_bytes(self, job_id: str, data: bytes, name: str) -> StoredFile:
        """Store bytes as the run's artifact `name`, directly in S3."""
        return self._objects.put_bytes(data, artifact_uri(self._seen(job_id), name))

    def log_sheet(self, job_id: str, key: str, frames: np.ndarray[Any, Any]) -> None:
        """Log a contact sheet of a video, by which MLflow compares runs.

        Args:
            job_id: the job's.
            key: what MLflow calls the picture.
            frames: uint8 `[F, H, W, 3]`.
        """
        run = self._seen(job_id)
        for name, data in artifacts(run, key, contact_sheet(frames)).items():
            self._objects.put_bytes(data, artifact_uri(run, name))
        self._runs.log(job_id, tags=LOGGED)

    def read_artifact(self, job_id: str, name: str) -> bytes:
        """Return an artifact's content."""
        return self._objects.get_bytes(artifact_uri(self._runs.get(job_id), name))

    def logs(self, job_id: str) -> bytes:
        """Return the tuners' logs of the job, attempt after attempt."""
        prefix = artifact_uri(self._runs.get(job_id), "logs") + "/"
        return b"".join(self._objects.get_bytes(uri) for uri in sorted(item.uri for item in self._objects.list(prefix)))

    @staticmethod
    def _request(run: Run) -> TuningJobCreate:
        text = join_tag(run.data.tags, "tav.request")
        try:
            return TuningJobCreate.model_validate_json(text)
        except ValidationError:  # accepted by an earlier release, whose bounds were others
            fields = json.loads(text)
            params = TuningParams.model_construct(**fields.pop("params", {}))
            return TuningJobCreate.model_construct(**fields, params=params)

    def _job(self, run: Run) -> TuningJob:
        tags = run.data.tags
        request = self._request(run)
        attempt = int(tags.get("tav.attempt", 0))
        status = _JOB_STATUS[run.info.status]
        if status is JobStatus.running and attempt == 0:
            status = JobStatus.queued  # its creation failed before MLflow's RUNNING was changed
        error = None
        if status is JobStatus.failed:
            message = tags.get("tav.error") or "The job's run was marked as failed in MLflow."
            error = Failure.model_validate({"code": tags.get("tav.error_code", "internal"), "message": message})
        version = tags.get("tav.version") if status is JobStatus.succeeded else None
        return TuningJob(
            id=run.info.run_id,
            status=status,
            **_progress(status, tags),
            loss=run.data.metrics.get("loss"),
            attempt=attempt,
            excused_attempts=int(tags.get("tav.excused", 0)),
            created_at=run.info.start_time / 1000,
            started_at=seconds(tags.get("tav.started_at")),
            finished_at=seconds(run.info.end_time) if status.final else None,
            caption=request.caption or tags.get("tav.caption") or None,
            caption_source="given" if request.caption is not None else "automatic",
            clip=ClipInfo.model_validate_json(tags["tav.clip"]),
            base=tags["tav.base"],
            model=tags["tav.model"],
            version=None if version is None else int(version),
            params=JobParams.model_validate(request.params.model_dump(exclude_unset=True)),
            estimate=Estimate.model_validate_json(tags[_ESTIMATE]) if _ESTIMATE in tags else None,
            validation_prompts=request.validation_prompts,
            truncate=request.truncate,
            unread=unread_of(tags),
            priority=request.priority,
            gpus=int(tags.get("tav.gpus", 1)),
            gpu_type=request.gpu_type,
            queue_deadline_seconds=request.queue_deadline_seconds,
            run_deadline_seconds=request.run_deadline_seconds,
            tenant=tenant_of(run),
            batch=request.batch,
            retry_of=tags.get("tav.retry_of"),
            request_id=tags.get(REQUEST_ID),
            cancel_requested=not status.final and _CANCEL in tags,
            error=error,
            metadata=request.metadata,
            mlflow_url=self._runs.url(run),
        )
