"""The wire format of the tav HTTP API (`/v1`), and its only definition: the gateway imports these models.

Times are UNIX seconds. Sizes are `[width, height]` in pixels. A field left out of a request (or null) takes
the base's recommended value, then the paper's.

common     what requests and responses are based on, and pages of them
names      names, references and labels
errors     why a job or a video failed; the body of an error response
tuning     how a clip is tuned: parameters and memory settings
bases      what the service tunes on, offers and allows
estimates  what a job takes, before it is submitted
jobs       tuning jobs and batches
models     models, versions, aliases
uploads    clips that go to S3 directly
videos     videos sampled from a version
"""

from tav_client.schemas.bases import Base, Bases, Choices, Limits
from tav_client.schemas.common import Page, WholeSeconds
from tav_client.schemas.errors import Failure, FailureCode, Problem
from tav_client.schemas.estimates import Estimate, EstimateCreate, Estimates, PhaseEstimate
from tav_client.schemas.jobs import (
    Batch,
    ClipInfo,
    JobDeleted,
    JobMetrics,
    JobPhase,
    JobStatus,
    MetricPoint,
    TuningJob,
    TuningJobCreate,
    WaitsFor,
)
from tav_client.schemas.models import AliasSet, Model, ModelDeleted, ModelUpdate, ModelVersion, ModelVersionDeleted, StoredFile
from tav_client.schemas.names import AnyModelName, Label, ModelName, ModelRef, Prompt, Truncate, model_slug
from tav_client.schemas.tuning import JobMemory, JobParams, MemorySetting, TuningParams
from tav_client.schemas.uploads import Upload, UploadCreate
from tav_client.schemas.videos import (
    PlayedSeconds,
    StepInterval,
    Video,
    VideoCreate,
    VideoDeleted,
    VideoFormat,
    VideoPage,
    VideoRequest,
    VideoSize,
    VideoStatus,
)

__all__ = [
    "AliasSet",
    "AnyModelName",
    "Base",
    "Bases",
    "Batch",
    "Choices",
    "ClipInfo",
    "Estimate",
    "EstimateCreate",
    "Estimates",
    "Failure",
    "FailureCode",
    "JobDeleted",
    "JobMemory",
    "JobMetrics",
    "JobParams",
    "JobPhase",
    "JobStatus",
    "Label",
    "Limits",
    "MemorySetting",
    "MetricPoint",
    "Model",
    "ModelDeleted",
    "ModelName",
    "ModelRef",
    "ModelUpdate",
    "ModelVersion",
    "ModelVersionDeleted",
    "Page",
    "PhaseEstimate",
    "PlayedSeconds",
    "Problem",
    "Prompt",
    "StepInterval",
    "StoredFile",
    "Truncate",
    "TuningJob",
    "TuningJobCreate",
    "TuningParams",
    "Upload",
    "UploadCreate",
    "Video",
    "VideoCreate",
    "VideoDeleted",
    "VideoFormat",
    "VideoPage",
    "VideoRequest",
    "VideoSize",
    "VideoStatus",
    "WaitsFor",
    "WholeSeconds",
    "model_slug",
]
