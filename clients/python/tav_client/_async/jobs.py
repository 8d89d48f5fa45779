"""`client.jobs`: tuning jobs, and the handle that follows one."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

from tav_client import _calls, _notebook, schemas
from tav_client._async.transport import AsyncTransport
from tav_client._errors import InvalidRequest, JobFailed
from tav_client._events import EventStream
from tav_client._listing import AsyncListing
from tav_client._logs import LogStream
from tav_client._progress import read_job, watching_job

OnJob = Callable[[schemas.TuningJob], object]
Params = schemas.TuningParams | Mapping[str, Any]


class AsyncJob:
    """A tuning job as last seen, and what can be done with it."""

    def __init__(self, jobs: AsyncJobs, snapshot: schemas.TuningJob) -> None:
        self._jobs = jobs
        self.snapshot = snapshot
        """All fields as last seen; `refresh` and `wait` bring them up to date."""

    def __repr__(self) -> str:
        seen = self.snapshot
        at = f", phase='{seen.phase}', step={seen.step}/{seen.total_steps}" if seen.phase else ""
        return f"{type(self).__name__}(id='{seen.id}', status='{seen.status}'{at}, model='{seen.model}')"

    def _repr_html_(self) -> str:
        seen, reading = self.snapshot, read_job(self.snapshot)
        return _notebook.fields(
            f"{seen.caption or ''}",
            {
                "job": seen.id,
                "status": _notebook.bar(reading.fraction, reading.line()),
                "model": self.model_ref,
                "error": seen.error and seen.error.message,
                "MLflow": seen.mlflow_url,
            },
        )

    @property
    def id(self) -> str:
        """The job's id."""
        return self.snapshot.id

    @property
    def status(self) -> schemas.JobStatus:
        """Where it stood when last seen."""
        return self.snapshot.status

    @property
    def phase(self) -> schemas.JobPhase | None:
        """What it did when last seen, if it was running."""
        return self.snapshot.phase

    @property
    def model(self) -> str:
        """The registry name that its version goes under."""
        return self.snapshot.model

    @property
    def version(self) -> int | None:
        """The version it registered, once succeeded."""
        return self.snapshot.version

    @property
    def model_ref(self) -> str:
        """`name/version` once succeeded, before that the model's name; what `videos.create` takes as `model`."""
        return self.model if self.version is None else f"{self.model}/{self.version}"

    @property
    def error(self) -> schemas.Failure | None:
        """Why it failed, if it did."""
        return self.snapshot.error

    @property
    def mlflow_url(self) -> str | None:
        """Its run in the MLflow UI."""
        return self.snapshot.mlflow_url

    async def refresh(self) -> AsyncJob:
        """Fetch the job as it is now."""
        self.snapshot = await self._jobs._transport.send(_calls.get_job(self.id))
        return self

    async def metrics(self, points: int | None = None) -> schemas.JobMetrics:
        """Return the job's curves, such as `loss`, as MLflow has them; some seconds behind while it runs.

        Args:
            points: of each curve, at most; left out, 1000.
        """
        return await self._jobs._transport.send(_calls.get_metrics(self.id, points))

    async def cancel(self) -> AsyncJob:
        """Ask the service to end it; a running job stops at its next step."""
        self.snapshot = await self._jobs._transport.send(_calls.cancel_job(self.id))
        return self

    async def wait(self, timeout: float | None = None, *, progress: bool = False, on_update: OnJob | None = None) -> AsyncJob:
        """Follow the job until it ends.

        Args:
            timeout: seconds; None: as long as it takes.
            progress: show phase, step, loss and remaining time on stderr: a bar on a terminal, otherwise a line now and then.
            on_update: called with every snapshot.

        Raises:
            JobFailed: it failed or was cancelled.
            WaitTimeout: the job goes on.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with watching_job(progress) as show:
            stream = EventStream(self.id, schemas.TuningJob, deadline=deadline)
            async with aclosing(self._jobs._transport.follow(stream)) as snapshots:
                async for snapshot in snapshots:
                    self.snapshot = snapshot
                    show(snapshot)
                    if on_update is not None:
                        on_update(snapshot)
        if self.status is not schemas.JobStatus.succeeded:
            raise JobFailed(self.snapshot)
        return self


class AsyncJobs:
    """Submits, finds and ends tuning jobs."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def create(
        self,
        clip: str | os.PathLike[str] | None = None,
        *,
        caption: str | None = None,
        clip_uri: str | None = None,
        model: str | None = None,
        base: str | None = None,
        validation_prompts: Sequence[str] = (),
        truncate: schemas.Truncate | None = None,
        params: Params | None = None,
        priority: int | None = None,
        metadata: Mapping[str, str] | None = None,
        batch: str | None = None,
        gpus: int | None = None,
        gpu_type: str | None = None,
        queue_deadline_seconds: int | None = None,
        run_deadline_seconds: int | None = None,
        idempotency_key: str | None = None,
        **options: Any,
    ) -> AsyncJob:
        """Submit a clip to be tuned; return as soon as the job is accepted.

        Args:
            clip: A video file, uploaded. Or:
            clip_uri: `s3://bucket/key` in a bucket the service allows.
            caption: what the clip shows (the source prompt); left out, the service's captioner says it, if it has one.
            model: registry name; left out, made from the caption.
            base: base to tune on; left out, the service's own.
            validation_prompts: sampled after tuning, up to 8.
            truncate: `error` refuses a caption or prompt longer than the base reads, instead of cutting its end.
            params: how to tune: a `TuningParams` or its fields.
            priority: higher goes first.
            metadata: kept with the job; lists can be filtered by it.
            batch: A label that jobs share which are listed, counted and cancelled together.
            gpus: how many tune the clip together; left out, the service's own number.
            gpu_type: only on GPUs of this type.
            queue_deadline_seconds: it fails if it waits longer for a tuner.
            run_deadline_seconds: it fails if it is not done so long after its first start.
            idempotency_key: the same key and request twice make one job; left out, a random one.
            **options: single fields of `TuningParams` (`steps=`, `num_frames=`, `size=`, `seed=`, …); they win over `params`.

        Raises:
            InvalidRequest: an argument is wrong; nothing was sent.
        """
        fields = {
            "caption": caption,
            "clip_uri": clip_uri,
            "model": model,
            "base": base,
            "validation_prompts": list(validation_prompts) or None,
            "truncate": truncate,
            "params": _params(params, options) or None,
            "priority": priority,
            "metadata": dict(metadata) if metadata else None,
            "batch": batch,
            "gpus": gpus,
            "gpu_type": gpu_type,
            "queue_deadline_seconds": queue_deadline_seconds,
            "run_deadline_seconds": run_deadline_seconds,
        }
        if isinstance(validation_prompts, str):
            raise InvalidRequest("validation_prompts: give a list of prompts, not one string.")
        request = _calls.request_of(schemas.TuningJobCreate, fields)
        path = None if clip is None else Path(clip)
        return AsyncJob(self, await self._transport.send(_calls.create_job(request, path, idempotency_key)))

    async def estimate(
        self,
        *,
        base: str | None = None,
        params: Params | None = None,
        videos: int | None = None,
        gpus: int | None = None,
        device: str | None = None,
        **options: Any,
    ) -> schemas.Estimates:
        """Estimate a job: peak memory and time in each memory setting that it would be tried in.

        Args:
            base: base to tune on; left out, the service's own.
            params: how to tune: a `TuningParams` or its fields. What is left out is as the base recommends.
            videos: sampled after tuning; left out, one.
            gpus: how many tune the clip together.
            device: A GPU type, such as `A100-80G`, or `cpu`; left out, what the service has.
            **options: single fields of `TuningParams` (`num_frames=`, `size=`, `steps=`, `memory=`, …); they win over `params`.

        Raises:
            InvalidRequest: an argument is wrong; nothing was sent.
            BadRequest: the service knows no such base or device.
        """
        fields = {"base": base, "params": _params(params, options) or None, "videos": videos, "gpus": gpus, "device": device}
        return await self._transport.send(_calls.create_estimate(_calls.request_of(schemas.EstimateCreate, fields)))

    async def get(self, id: str) -> AsyncJob:
        """Return the job as it is now.

        Raises:
            NotFound: there is no such job.
        """
        return AsyncJob(self, await self._transport.send(_calls.get_job(id)))

    def list(
        self,
        *,
        status: schemas.JobStatus | str | None = None,
        model: str | None = None,
        batch: str | None = None,
        metadata: Mapping[str, str] | None = None,
        page_size: int | None = None,
    ) -> AsyncListing[AsyncJob]:
        """List all jobs, newest first, fetched page by page as they are iterated over."""
        try:
            wire_status = None if status is None else schemas.JobStatus(status)
        except ValueError:
            raise InvalidRequest(f"status: {status!r} is none of {', '.join(schemas.JobStatus)}.") from None
        snapshots = self._transport.every(lambda after: _calls.list_jobs(after, page_size, wire_status, model, batch, metadata))
        return AsyncListing(AsyncJob(self, snapshot) async for snapshot in snapshots)

    async def cancel(self, id: str) -> AsyncJob:
        """Ask the service to end a job; a running one stops at its next step.

        Raises:
            NotFound: there is no such job.
            Conflict: it has ended already.
        """
        return AsyncJob(self, await self._transport.send(_calls.cancel_job(id)))

    async def retry(self, id: str, *, idempotency_key: str | None = None) -> AsyncJob:
        """Submit a failed or cancelled job again, as a new one.

        Raises:
            NotFound: there is no such job.
            Conflict: it is open, or has succeeded.
        """
        return AsyncJob(self, await self._transport.send(_calls.retry_job(id, idempotency_key)))

    async def delete(self, id: str) -> None:
        """Remove a job that has ended, with its version, videos, log and clip.

        Raises:
            NotFound: there is no such job.
            Conflict: it is still open.
        """
        await self._transport.send(_calls.delete_job(id))

    async def logs(self, id: str) -> str:
        """Return what the job's tuners have logged so far, of this job alone."""
        return await self._transport.send(_calls.job_logs(id))

    def follow_logs(self, id: str) -> AsyncIterator[str]:
        """Yield the log piece by piece as it is written, until the job has ended. A cut connection resumes where it was."""
        return self._transport.follow_log(LogStream(id))

    def events(self, id: str, *, last_event_id: str | None = None) -> AsyncIterator[schemas.TuningJob]:
        """Yield snapshots of a job as it changes, until it is final. A cut connection resumes where it was."""
        return self._transport.follow(EventStream(id, schemas.TuningJob, last_event_id=last_event_id))


def _params(params: Params | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """Single fields over those of `params`."""
    fields = params.model_dump(exclude_unset=True) if isinstance(params, schemas.TuningParams) else dict(params or {})
    return fields | {name: value for name, value in options.items() if value is not None}
