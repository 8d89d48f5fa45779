"""What the gateway and a sampler send each other: for one request a stream of replies.

SampleRequest → Step (0, before the delta is loaded) → Step … → SampledVideo, or a Failure instead of what would follow

Samplers send an error as a last reply instead of raising it, so that its code and sentence pass Ray as they are. During a
rolling update the two may be of different releases: new fields need a default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tav.errors import TavError
from tav_client.schemas import Failure, FailureCode, ModelVersion, VideoCreate


def version_id(version: ModelVersion) -> str:
    """Return `name/version`, by which Serve routes requests."""
    return f"{version.name}/{version.version}"


@dataclass(frozen=True)
class SampleRequest:
    """One video to sample."""

    video: VideoCreate
    version: ModelVersion
    """What the video's `model` refers to."""
    log_ids: Mapping[str, str] = field(default_factory=dict)
    """See `services.logs.ids`."""


@dataclass(frozen=True)
class Step:
    """So many of the denoising steps are done."""

    step: int
    """0 … total."""
    total: int
    unread: Mapping[str, str] = field(default_factory=dict)
    """In step 0: the ends of the request's texts that the base does not read, by field."""


@dataclass(frozen=True)
class SampledVideo:
    """A video, encoded."""

    content: bytes
    seconds: float
    """How long it plays."""
    size: tuple[int, int]
    """Width and height in pixels."""
    latents_sha256: str | None = None
    contact_sheet: bytes | None = None
    """PNG of its frames, of a video that is recorded."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """`sampling_seconds`, `latency_seconds`, `steps`, `frames`, and scores of a video that is recorded."""
    replica: str = ""
    """Serve's id of the sampler."""


Reply = Step | SampledVideo | Failure


def failure_of(error: TavError) -> Failure:
    """Return an error as a failure; a code that videos do not have becomes `internal`."""
    known = error.code in FailureCode.__members__
    return Failure(code=FailureCode(error.code) if known else FailureCode.internal, message=str(error))
