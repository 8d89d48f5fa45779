"""Client of tav, one-shot video tuning as a service. Needs neither torch nor ray.

`TavClient` speaks to a service; `tav_client.schemas` is the wire format; the command line is `tav`.
"""

from tav_client._client import TavClient
from tav_client._content import VideoContent
from tav_client._errors import (
    APIConnectionError,
    APIResponseError,
    APIStatusError,
    BadRequest,
    Conflict,
    Forbidden,
    InvalidRequest,
    JobFailed,
    NotFound,
    RateLimited,
    ServerError,
    TavClientError,
    Unauthorized,
    Unprocessable,
    VideoFailed,
    WaitTimeout,
)
from tav_client._jobs import Job
from tav_client._version import __version__
from tav_client._videos import Video
from tav_client.schemas import (
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
    "BadRequest",
    "Conflict",
    "FailureCode",
    "Forbidden",
    "InvalidRequest",
    "Job",
    "JobFailed",
    "JobPhase",
    "JobStatus",
    "Model",
    "ModelVersion",
    "NotFound",
    "RateLimited",
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
