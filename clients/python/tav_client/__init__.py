"""Client of tav, one-shot video tuning as a service. Needs neither torch nor ray.

`TavClient` speaks to a service, `AsyncTavClient` likewise with `await`; `tav_client.schemas` is the wire format; the command
line is `tav`.
"""

from tav_client._async.client import AsyncTavClient
from tav_client._async.jobs import AsyncJob
from tav_client._async.videos import AsyncVideo
from tav_client._content import VideoContent
from tav_client._errors import (
    APIConnectionError,
    APIResponseError,
    APIStatusError,
    BadRequest,
    ClipsRefused,
    Conflict,
    Forbidden,
    InvalidRequest,
    JobFailed,
    NotFound,
    RateLimited,
    RefusedClip,
    ServerError,
    TavClientError,
    Unauthorized,
    Unprocessable,
    VideoFailed,
    WaitTimeout,
)
from tav_client._manifest import Manifest
from tav_client._sync.client import TavClient
from tav_client._sync.jobs import Job
from tav_client._sync.videos import Video
from tav_client._version import __version__
from tav_client.schemas import (
    Batch,
    FailureCode,
    JobPhase,
    JobStatus,
    Model,
    ModelVersion,
    TuningJob,
    TuningParams,
    VideoStatus,
)

__all__ = [
    "APIConnectionError",
    "APIResponseError",
    "APIStatusError",
    "AsyncJob",
    "AsyncTavClient",
    "AsyncVideo",
    "BadRequest",
    "Batch",
    "ClipsRefused",
    "Conflict",
    "FailureCode",
    "Forbidden",
    "InvalidRequest",
    "Job",
    "JobFailed",
    "JobPhase",
    "JobStatus",
    "Manifest",
    "Model",
    "ModelVersion",
    "NotFound",
    "RateLimited",
    "RefusedClip",
    "ServerError",
    "TavClient",
    "TavClientError",
    "TuningJob",
    "TuningParams",
    "Unauthorized",
    "Unprocessable",
    "Video",
    "VideoContent",
    "VideoFailed",
    "VideoStatus",
    "WaitTimeout",
    "__version__",
]
