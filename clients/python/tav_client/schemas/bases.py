"""The bases that a service tunes on, and what it offers and allows besides."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from tav_client.schemas.common import Response
from tav_client.schemas.tuning import AttentionMode, GroupNormMode, Precision
from tav_client.schemas.videos import SchedulerName, VideoFormat


class Base(Response):
    """A text-to-image model that clips are tuned on."""

    id: str = Field(description="What `base` of a job takes.")
    object: Literal["base"] = "base"
    default: bool = Field(description="Jobs that name no base are tuned on it.")
    defaults: dict[str, dict[str, Any]] = Field(
        description="What a field that is left out gets, by part: `clip`, `net`, `tune`, `invert`, `sample`. The base's own "
        "recommendations where the gateway has its files, the paper's for the rest."
    )


class Limits(Response):
    """What a request may ask for at most."""

    clip_bytes: int
    clip_seconds: float
    clip_pixels: int = Field(description="Of one frame.")
    video_seconds: float = Field(description="That a video may take a sampler, by the estimate.")
    gpus: int = Field(description="That tune one clip together.")
    priority: int = Field(description="Of a job of a caller who is no operator.")


class Choices(Response):
    """The values of fields that take one of some."""

    scheduler: list[SchedulerName]
    attention: list[AttentionMode]
    group_norm: list[GroupNormMode]
    precision: list[Precision]
    zero_stage: list[int]
    format: list[VideoFormat]
    gpu_type: list[str]


class Bases(Response):
    """`GET /v1/bases`: what the service offers."""

    object: Literal["list"] = "list"
    data: list[Base] = Field(description="The default one first.")
    limits: Limits
    choices: Choices
    captions: bool = Field(description="A clip may come without a caption: the service has a captioner.")
