"""Everything the client raises.

    TavClientError                 any of these
    ├── InvalidRequest             the arguments do not make a request; nothing was sent
    ├── APIConnectionError         the service gave no answer
    ├── APIResponseError           what answered is not a tav service
    ├── APIStatusError             the service answered with a problem
    │   ├── BadRequest             400, 405, 413, 415 and other 4xx
    │   ├── Unauthorized           401
    │   ├── Forbidden              403
    │   ├── NotFound               404
    │   ├── Conflict               409
    │   ├── Unprocessable          422
    │   ├── RateLimited            429
    │   └── ServerError            5xx
    ├── ClipsRefused               some clips of a manifest were not submitted; the others were
    ├── JobFailed                  a tuning job ended without a version
    ├── VideoFailed                a video ended without content
    └── WaitTimeout                `wait` ran out of time; what was waited for goes on

`str(error)` is a sentence for people. What it stands for is in `code`, for programs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tav_client import schemas


class TavClientError(Exception):
    """Any error of the client."""

    code: str = "client_error"
    """Stable and machine-readable."""
    request_id: str | None = None
    """The `x-request-id` of the answer it came from, if there was one."""

    def __init__(self, message: str, *, request_id: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.request_id = request_id


class InvalidRequest(TavClientError, ValueError):
    """The arguments do not make a request; nothing was sent."""

    code = "invalid_request"


class APIConnectionError(TavClientError):
    """The service gave no answer: not reached, cut off, or too slow."""

    code = "connection_error"


class APIResponseError(TavClientError):
    """What answered is not a tav service: its answer has another shape."""

    code = "unexpected_answer"


class APIStatusError(TavClientError):
    """The service answered with a problem."""

    def __init__(self, problem: schemas.Problem, *, request_id: str | None = None) -> None:
        sentence = problem.detail if request_id is None else f"{problem.detail} (request {request_id})"
        super().__init__(sentence, request_id=request_id)
        self.message = problem.detail
        self.problem = problem
        self.code = problem.code
        self.status = problem.status


class BadRequest(APIStatusError):
    """400, 405, 413, 415 and other 4xx: the service does not take such a request."""


class Unauthorized(APIStatusError):
    """401: the service wants an API key."""


class Forbidden(APIStatusError):
    """403: the service may not do this for you."""


class NotFound(APIStatusError):
    """404: there is no such job, model, version or video."""


class Conflict(APIStatusError):
    """409: it does not fit the state of things."""


class Unprocessable(APIStatusError):
    """422: a field is missing or wrong, or the clip cannot be used."""


class RateLimited(APIStatusError):
    """429: too many requests."""


class ServerError(APIStatusError):
    """5xx: the service could not do it now."""


@dataclass(frozen=True)
class RefusedClip:
    """A clip of a manifest that was not submitted."""

    number: int
    """Which of the manifest's clips, from 1."""
    clip: str
    """As the manifest names it."""
    reason: str

    def __str__(self) -> str:
        return f"clip {self.number}{' ' if self.clip else ''}{self.clip}: {self.reason}"


class ClipsRefused(TavClientError):
    """Some clips of a manifest were not submitted; the others were. `refused` says which and why."""

    code = "clips_refused"

    def __init__(self, batch: str, total: int, refused: Sequence[RefusedClip]) -> None:
        self.refused = tuple(refused)
        those = " ".join(map(str, self.refused))
        super().__init__(f"{len(self.refused)} of {total} clips of batch {batch} were not submitted: {those}")


class JobFailed(TavClientError):
    """A tuning job ended without a version: failed or cancelled."""

    def __init__(self, job: schemas.TuningJob) -> None:
        self.job = job
        if job.error is not None:
            self.code, reason = job.error.code.value, job.error.message
        else:
            self.code, reason = job.status.value, f"it was {job.status}"
        super().__init__(f"Tuning job {job.id} ended without a version: {reason}")
        self.message = reason


class VideoFailed(TavClientError):
    """A video ended without content."""

    def __init__(self, video: schemas.Video) -> None:
        self.video = video
        if video.error is not None:
            self.code, reason = video.error.code.value, video.error.message
        else:
            self.code, reason = video.status.value, f"it was {video.status}"
        super().__init__(f"Video {video.id} has no content: {reason}")
        self.message = reason


class WaitTimeout(TavClientError, TimeoutError):
    """`wait` ran out of time; what was waited for goes on."""

    code = "wait_timeout"


BY_STATUS: dict[int, type[APIStatusError]] = {
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    422: Unprocessable,
    429: RateLimited,
}


def status_error(problem: schemas.Problem, request_id: str | None) -> APIStatusError:
    """Return the class of the tree that a problem's status belongs to."""
    fallback = ServerError if problem.status >= 500 else BadRequest
    return BY_STATUS.get(problem.status, fallback)(problem, request_id=request_id)
