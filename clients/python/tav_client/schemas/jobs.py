"""Tuning jobs and their batches."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from tav_client.schemas.common import Request, Response
from tav_client.schemas.errors import Failure
from tav_client.schemas.estimates import Estimate
from tav_client.schemas.names import Label, ModelName, Prompt, Truncate
from tav_client.schemas.tuning import JobParams, TuningParams


class JobStatus(StrEnum):
    """Where a tuning job stands."""

    queued = "queued"
    """Accepted and kept; waits for a tuner. Also entered again after a crash, with one attempt more."""
    running = "running"
    """A tuner holds it; `phase` says what it does."""
    succeeded = "succeeded"
    """Its model version is registered."""
    failed = "failed"
    """Ended for the reason in `error`."""
    cancelled = "cancelled"
    """Ended by a cancel call."""

    @property
    def final(self) -> bool:
        """Whether the status will not change any more."""
        return self in (JobStatus.succeeded, JobStatus.failed, JobStatus.cancelled)


class JobPhase(StrEnum):
    """What a running job is doing, in order."""

    preparing = "preparing"
    tuning = "tuning"
    inverting = "inverting"
    validating = "validating"
    registering = "registering"


class WaitsFor(StrEnum):
    """What a queued job waits for."""

    tuner_start = "tuner_start"
    """A tuner for it is starting: processes begin, the base is loaded, or a node has to come first."""
    free_tuner = "free_tuner"
    """All places for tuners are taken by other jobs."""
    own_jobs = "own_jobs"
    """As many jobs of its tenant run as may."""
    pause = "pause"
    """Its last attempt ended by something that may pass; it is tried again soon."""


class TuningJobCreate(Request):
    """`POST /v1/tuning-jobs`: JSON with `clip_uri`, or multipart with the file part `clip` and the rest as part `job`."""

    caption: Prompt | None = Field(
        None, description="The source prompt: what the clip shows. Left out, the service's captioner says it, if it has one."
    )
    clip_uri: str | None = Field(None, max_length=1024, description="`s3://bucket/key` in an allowed bucket.")
    model: ModelName | None = Field(None, description="Registry name; left out, made from the caption.")
    base: str | None = Field(None, max_length=256, description="Base to tune on; left out, the service's own.")
    params: TuningParams = Field(default_factory=TuningParams)
    validation_prompts: list[Prompt] = Field(default_factory=list, max_length=8, description="Sampled after tuning.")
    truncate: Truncate = Field(
        "end",
        description="Where caption or validation prompts are longer than the base reads: `end` cuts them and tells in "
        "`unread`, `error` refuses them.",
    )
    priority: int = Field(0, ge=-100, le=100, description="Higher goes first.")
    gpus: int | None = Field(None, ge=1, le=64, description="GPUs that tune the clip together; left out, the service's own.")
    gpu_type: Label | None = Field(None, description="Only on GPUs of this type (Ray's accelerator type, e.g. `A100`).")
    queue_deadline_seconds: int | None = Field(
        None, ge=1, description="It fails if it waits longer for a tuner; left out, the service's own limit."
    )
    run_deadline_seconds: int | None = Field(
        None, ge=1, description="It fails if it runs longer, counted from its first start; left out, the service's own limit."
    )
    batch: Label | None = Field(None, description="Jobs of one batch are listed, summarised and cancelled together.")
    metadata: dict[Label, Annotated[str, StringConstraints(max_length=512)]] = Field(
        default_factory=dict, max_length=16, description="Yours to choose; lists can be filtered by it."
    )


class ClipInfo(Response):
    """The stored clip, and how it was read."""

    uri: str
    sha256: str
    width: int = Field(description="As used: turned as the file says, in square pixels.")
    height: int
    num_frames: int
    fps: float = Field(description="Frames per second, by the frames' times.")
    duration: float | None = Field(None, description="Seconds.")
    codec: str | None = None
    notes: list[str] = Field(
        default_factory=list, description="What was done to show it as a player does, e.g. `tone-mapped from HLG`."
    )


class TuningJob(Response):
    """One clip tuned on one base with one configuration."""

    id: str
    object: Literal["tuning_job"] = "tuning_job"
    status: JobStatus
    phase: JobPhase | None = Field(None, description="What it does; of one that failed or was cancelled, where it ended.")
    waits_for: WaitsFor | None = Field(None, description="What it waits for while it is queued.")
    step: int = Field(0, description="Steps done in this phase.")
    total_steps: int | None = Field(None, description="Steps of this phase.")
    progress: float = Field(0.0, description="Of the whole job, 0–1.")
    loss: float | None = None
    eta_seconds: float | None = None
    attempt: int = Field(0, description="How often a tuner has begun it.")
    excused_attempts: int = Field(
        0,
        description="Attempts that ended by no fault of the job or its process (a node taken away with notice, a restart of "
        "the service) and so do not count towards the limit.",
    )
    created_at: float
    started_at: float | None = None
    finished_at: float | None = None
    caption: str | None = Field(description="Null until the service has captioned a clip that came without.")
    caption_source: Literal["given", "automatic"] = "given"
    clip: ClipInfo
    base: str
    model: str
    version: int | None = Field(None, description="The registered version, once succeeded.")
    params: JobParams
    estimate: Estimate | None = Field(
        None,
        description="What it takes, predicted when it was submitted, and anew by its tuner for each memory setting that it "
        "works in; null where the base's architecture or the device is not known.",
    )
    validation_prompts: list[str] = Field(default_factory=list)
    truncate: Truncate = "end"
    unread: dict[str, str] = Field(
        default_factory=dict,
        description="What the base does not read, being too long for it: the ends of `caption` and `validation_prompts.N`.",
    )
    priority: int = 0
    gpus: int = Field(1, description="GPUs that tune it together.")
    gpu_type: str | None = None
    queue_deadline_seconds: float | None = None
    run_deadline_seconds: float | None = None
    tenant: str = Field("default", description="Whose job it is.")
    batch: str | None = None
    retry_of: str | None = Field(None, description="The job that this one repeats.")
    request_id: str | None = Field(
        None, description="`x-request-id` of the call that made it; the service's log lines carry it."
    )
    cancel_requested: bool = Field(False, description="It runs, but is to stop.")
    error: Failure | None = None
    metadata: dict[str, str] = Field(default_factory=dict)
    mlflow_url: str | None = Field(None, description="The job's run in the MLflow UI.")


class MetricPoint(Response):
    """One value of a metric."""

    step: int
    value: float | None = Field(description="Null where it is no number (NaN).")
    timestamp: float = Field(description="UNIX seconds.")


class JobMetrics(Response):
    """`GET /v1/tuning-jobs/{id}/metrics`: a job's curves, by the metric's name, as MLflow has them."""

    id: str
    object: Literal["tuning_job.metrics"] = "tuning_job.metrics"
    data: dict[str, list[MetricPoint]] = Field(description="By name, in order of steps; `loss` is the tuning loss.")


class Batch(Response):
    """The jobs of one batch, counted."""

    id: str
    object: Literal["batch"] = "batch"
    total: int
    counts: dict[JobStatus, int] = Field(description="Jobs by status.")
    finished: bool = Field(description="True when no job of it is open any more.")


class JobDeleted(Response):
    """Answer of a deletion."""

    id: str
    object: Literal["tuning_job.deleted"] = "tuning_job.deleted"
    deleted: bool = True
