"""/v1/bases."""

from __future__ import annotations

from typing import get_args

from fastapi import APIRouter

from services.api.deps import SettingsDep
from services.settings import Settings
from tav.bases import recommended
from tav.config import (
    AttentionMode,
    ClipConfig,
    GroupNormMode,
    InvertConfig,
    NetConfig,
    SampleConfig,
    SchedulerName,
    TuneConfig,
)
from tav.memory import MemorySetting, Precision
from tav_client.schemas import Base, Bases, Choices, Limits, VideoFormat

router = APIRouter(prefix="/bases", tags=["bases"])

_PARTS = {"clip": ClipConfig, "net": NetConfig, "tune": TuneConfig, "invert": InvertConfig, "sample": SampleConfig}


@router.get("", summary="List bases")
def list_bases(settings: SettingsDep) -> Bases:
    """What the service tunes on, what it allows, and the values that fields can take."""
    limits = settings.clip_limits
    return Bases(
        data=[_base(name, settings) for name in settings.served_bases],
        limits=Limits(
            clip_bytes=limits.max_bytes,
            clip_seconds=limits.max_seconds,
            clip_pixels=limits.max_pixels,
            video_seconds=settings.max_video_seconds,
            gpus=settings.max_gpus_per_job,
            priority=settings.max_priority,
        ),
        choices=Choices(
            scheduler=list(get_args(SchedulerName)),
            attention=list(get_args(AttentionMode)),
            group_norm=list(get_args(GroupNormMode)),
            precision=list(get_args(Precision)),
            zero_stage=list(get_args(MemorySetting.model_fields["zero_stage"].annotation)),
            format=list(get_args(VideoFormat)),
            gpu_type=settings.gpu_types,
        ),
        captions=settings.captioner is not None,
    )


def _base(name: str, settings: Settings) -> Base:
    own = recommended(name)
    defaults = {part: config(**own.get(part, {})).model_dump(mode="json") for part, config in _PARTS.items()}
    return Base(id=name, default=name == settings.base, defaults=defaults)
