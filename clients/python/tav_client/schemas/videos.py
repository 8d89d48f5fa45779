"""Videos sampled from a model version, in the shape of OpenAI's `videos` resource."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field, StringConstraints, ValidationInfo, field_validator

from tav_client.schemas.common import Accepted, Page, Request, Response, WholeSeconds, as_tuple
from tav_client.schemas.errors import Failure
from tav_client.schemas.names import ModelRef, Prompt, Truncate


def _parse_size(value: Any) -> Any:
    """Parse `WIDTHxHEIGHT`, as OpenAI writes a size."""
    if isinstance(value, str) and (match := re.fullmatch(r"(\d{1,5})x(\d{1,5})", value)):
        return int(match[1]), int(match[2])
    return as_tuple(value)


_Side = Annotated[int, Field(ge=8, le=4096, multiple_of=8)]
_SizeText = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,5}x[0-9]{1,5}$")]
VideoSize = Annotated[tuple[_Side, _Side], BeforeValidator(_parse_size, json_schema_input_type=tuple[_Side, _Side] | _SizeText)]
"""Width and height in pixels, multiples of 8."""


def _parse_interval(value: Any) -> Any:
    """Parse `BEGIN-END`, as command lines and forms write an interval."""
    if isinstance(value, str) and (match := re.fullmatch(r"(\d{0,9}\.?\d{1,9})-(\d{0,9}\.?\d{1,9})", value)):
        return float(match[1]), float(match[2])
    return as_tuple(value)


_Share = Annotated[float, Field(ge=0, le=1)]
_IntervalText = Annotated[str, StringConstraints(pattern=r"^[0-9]{0,9}[.]?[0-9]{1,9}-[0-9]{0,9}[.]?[0-9]{1,9}$")]
StepInterval = Annotated[
    tuple[_Share, _Share], BeforeValidator(_parse_interval, json_schema_input_type=tuple[_Share, _Share] | _IntervalText)
]
"""Begin and end as shares of the sampling steps, 0–1."""


def _parse_seconds(value: Any) -> Any:
    """Parse a number in a string, as OpenAI writes seconds."""
    return float(value) if isinstance(value, str) and re.fullmatch(r"\d{1,4}(\.\d{1,9})?", value) else value


_Played = Annotated[float, Field(gt=0, le=3600)]
_PlayedText = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,4}([.][0-9]{1,9})?$")]
PlayedSeconds = Annotated[_Played, BeforeValidator(_parse_seconds, json_schema_input_type=_Played | _PlayedText)]
"""How long a video plays."""

VideoFormat = Literal["mp4", "gif", "webm"]
SchedulerName = Literal["ddim", "dpmpp_2m", "unipc"]


class _VideoFields(BaseModel):
    """What a video is made from."""

    model: ModelRef = Field(description="`name`, `name@alias` or `name/version`.")
    prompt: Prompt = Field(description="The edited prompt.")
    negative_prompt: str = Field("", max_length=1000, description="What the video should not show.")
    truncate: Truncate = Field(
        "end",
        description="Where a prompt is longer than the base reads: `end` cuts it and tells in `unread`, `error` refuses it.",
    )
    guidance_scale: float | None = Field(None, ge=1, le=50, description="How closely it follows the prompt.")
    guidance_interval: StepInterval | None = Field(
        None,
        description="`[from, until]` or `FROM-UNTIL`, shares of the steps: guidance only there; other steps cost half.",
    )
    num_inference_steps: int | None = Field(None, ge=1, le=1000, description="Sampling steps.")
    strength: float | None = Field(
        None,
        gt=0,
        le=1,
        description="How much of the denoising the prompt decides. Below 1, the first steps retrace the clip's inversion.",
    )
    feature_injection: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Share of the first steps that take over the clip's features: things stay where they are.",
    )
    scheduler: SchedulerName | None = Field(
        None, description="Sampler: `ddim`, the paper's, or a multistep solver that needs fewer steps."
    )
    cache_interval: int | None = Field(
        None,
        ge=1,
        le=1000,
        description="In one of so many steps the whole network is computed; those between reuse its features.",
    )
    seed: int = Field(0, ge=0, lt=2**63, description="Of the Gaussian noise, where any is used.")
    use_inverted_latents: bool = Field(True, description="Start from the clip's inverted latents, which keep its motion.")
    noise_blend: float | None = Field(
        None, ge=0, le=1, description="Share of the inverted latents' variance replaced by noise: 0 keeps the clip's motion."
    )
    num_frames: int | None = Field(None, ge=1, le=512, description="Frames; only without inverted latents.")
    size: VideoSize | None = Field(None, description="`[width, height]` or `WIDTHxHEIGHT`; only without inverted latents.")
    fps: float | None = Field(None, ge=0.01, le=120, description="Frames a second; left out, the clip's sampled rate.")
    seconds: PlayedSeconds | None = Field(
        None, description="How long the frames play: sets their rate. Give fps or seconds, not both."
    )
    format: VideoFormat = "mp4"
    record: bool = Field(
        True, description="Keep it, as a run below its tuning job's. Without, only `/v1/videos/sync` takes it."
    )


class VideoCreate(_VideoFields, Request):
    """`POST /v1/videos` and `POST /v1/videos/sync`."""

    @field_validator("noise_blend")
    @classmethod
    def _something_to_blend(cls, value: float | None, info: ValidationInfo) -> float | None:
        if value and not info.data.get("use_inverted_latents", True):
            raise ValueError("needs inverted latents: leave it out, or use_inverted_latents")
        return value

    @field_validator("guidance_interval")
    @classmethod
    def _from_before_until(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value and value[0] >= value[1]:
            raise ValueError("must begin before it ends: give the lower share first, as in [0, 0.6]")
        return value


class VideoRequest(Accepted, _VideoFields, Response):
    """A video's request as it was accepted."""


class VideoStatus(StrEnum):
    """Where a video stands; OpenAI's words."""

    queued = "queued"
    in_progress = "in_progress"
    completed = "completed"
    failed = "failed"

    @property
    def final(self) -> bool:
        """Whether the status will not change any more."""
        return self in (VideoStatus.completed, VideoStatus.failed)


class Video(Response):
    """The result of sampling, in the shape of OpenAI's `videos` resource."""

    id: str
    object: Literal["video"] = "video"
    tenant: str = Field("default", description="Whose video it is.")
    created_at: WholeSeconds
    completed_at: WholeSeconds | None = None
    status: VideoStatus
    progress: int = Field(0, description="Percent.")
    step: int = Field(0, description="Denoising steps done.")
    total_steps: int | None = Field(None, description="Known from the first step on.")
    model: str = Field(description="As asked for.")
    model_version: str = Field(description="What it meant: `name/version`.")
    prompt: str
    unread: dict[str, str] = Field(
        default_factory=dict,
        description="What the base does not read, being too long for it: the ends of `prompt` and `negative_prompt`.",
    )
    request: VideoRequest
    seconds: str | None = None
    size: str | None = Field(None, description="`WIDTHxHEIGHT`.")
    format: VideoFormat = "mp4"
    latents_sha256: str | None = Field(
        None, description="Of the latents it was decoded from: the same version and request give the same on the same hardware."
    )
    request_id: str | None = Field(None, description="`x-request-id` of the call that made it.")
    error: Failure | None = None
    mlflow_url: str | None = None


class VideoDeleted(Response):
    """Answer of `DELETE /v1/videos/{id}`."""

    id: str
    object: Literal["video.deleted"] = "video.deleted"
    deleted: bool = True


class VideoPage(Page[Video]):
    """A page of videos; OpenAI's clients go on after `last_id`, which is the same as `next_cursor`."""

    first_id: str | None = None
    last_id: str | None = None
