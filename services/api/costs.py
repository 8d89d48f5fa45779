"""Whether a video can be drawn by this service's samplers, before it is accepted."""

from __future__ import annotations

from services.api.http.errors import invalid
from services.compute import described, likely_device, sampler_memory
from services.sampling.estimates import refusal
from services.settings import Settings
from tav.bases import recommended
from tav.config import NetConfig, SampleConfig
from tav.estimate.device import KNOWN
from tav.estimate.profile import of_base
from tav.estimate.video import VideoWork
from tav_client.schemas import ModelVersion, VideoCreate


def check_cost(wanted: VideoCreate, version: ModelVersion, settings: Settings) -> None:
    """Refuse what takes more memory or time than there is; blocks.

    Where the base's architecture or the device is not known here, the sampler asks itself the same question.

    Raises:
        ApiError: 422, with what it takes and what would fit.
    """
    profile, name = of_base(version.base), likely_device(settings)
    if profile is None or name not in KNOWN:
        return
    precision = settings.precision_on(name != "cpu")
    device = described(name, precision, settings)
    device = device.model_copy(update={"memory_bytes": sampler_memory(settings, device)})
    base = recommended(version.base)
    given = wanted.model_dump(include=set(SampleConfig.model_fields), exclude_none=True)
    work = VideoWork.of(
        SampleConfig(**(base.get("sample", {}) | given)),
        wanted.num_frames or version.num_frames,
        wanted.size or version.size,
        wanted.use_inverted_latents,
        NetConfig(**base.get("net", {})).attention,
    )
    free = not wanted.use_inverted_latents
    if refused := refusal(work, profile, precision, device, settings.max_video_seconds, free=free):
        raise invalid(f"{refused}.", "size" if free else "model")
