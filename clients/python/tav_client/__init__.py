"""Client of tav, one-shot video tuning as a service. Needs neither torch nor ray.

`TavClient` speaks to a service, `AsyncTavClient` does so with `await`. Both are made of one definition.

schemas/     the wire format
_async/      the client with `await`: jobs, videos, models, batches
_sync/       the client without, generated from `_async/`
_calls       each call as a value: its request, and how its response is read
_http        addresses, headers, and the error of a silent service
_retry       when a request is sent again, and after how long
_errors      everything the client raises
_sentences   pydantic's errors as sentences
_events      server-sent events as snapshots, across cut connections
_logs        a job's log, across cut connections
_download    a video fetched into a file, across cut connections
_listing     lists that are fetched page by page
_content     the bytes of a video
_manifest    many clips to tune with shared settings
_files       files that are written whole or not at all
_texts       other people's text: files, and what a terminal must not obey
_progress    how far a job or a video is
_estimates   estimates as rows
_tables      lists and estimates as tables in a notebook
_notebook    results in a notebook
_preview     a video that shows itself in a notebook
_version     the version, sent as the user agent
cli/         the command line `tav`
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
