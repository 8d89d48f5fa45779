"""Whether a sampler has memory and time for a video. The gateway asks before it accepts one, the sampler again. No torch."""

from __future__ import annotations

from services.compute import device_of, likely_device, sampler_memory
from services.settings import Settings
from tav.bases import recommended
from tav.config import NetConfig, SampleConfig
from tav.errors import InvalidConfig, OutOfMemory
from tav.estimate import Device, Profile
from tav.estimate.device import KNOWN
from tav.estimate.profile import of_base
from tav.estimate.video import VideoWork, estimate_video, largest_that_fits
from tav.memory import Precision
from tav_client.schemas import ModelVersion, VideoCreate

_GIB = 2**30
_UNITS = ((86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second"))


def foreseen_refusal(request: VideoCreate, version: ModelVersion, settings: Settings) -> OutOfMemory | InvalidConfig | None:
    """Return why no sampler of this service has memory or time for a video; None where one has. Blocks.

    None also where the gateway does not know the base's architecture or the samplers' device: then the sampler refuses.

    Args:
        request: the video.
        version: what its `model` refers to.
        settings: the service's.
    """
    profile, name = of_base(version.base), likely_device(settings)
    if profile is None or name not in KNOWN:
        return None
    precision = settings.precision_on(name != "cpu")
    device = device_of(name, precision, settings)
    device = device.model_copy(update={"memory_bytes": sampler_memory(settings, device)})
    base = recommended(version.base)
    options = request.model_dump(include=set(SampleConfig.model_fields), exclude_none=True)
    work = VideoWork.of(
        SampleConfig(**(base.get("sample", {}) | options)),
        version.num_frames,
        version.size,
        request.use_inverted_latents,
        NetConfig(**base.get("net", {})).attention,
    )
    return refusal(work, profile, precision, device, settings.max_video_seconds, free=not request.use_inverted_latents)


def refusal(
    work: VideoWork, profile: Profile, precision: Precision, device: Device, max_seconds: float, *, free: bool, beside: int = 0
) -> OutOfMemory | InvalidConfig | None:
    """Return why a sampler has no memory or time for a video: what it takes, what there is, and what would fit.

    Args:
        work: the video.
        profile: of its base.
        precision: of the sampler.
        device: the sampler's, with the memory that it may take.
        max_seconds: time that a video may take.
        free: whether the request may choose frames and size; otherwise they are the clip's.
        beside: bytes of deltas that the sampler holds on the device.
    """
    estimate = estimate_video(profile, work, precision, device, beside)
    if estimate.fits and estimate.seconds <= max_seconds:
        return None

    def fits(other: VideoWork) -> bool:
        estimate = estimate_video(profile, other, precision, device, beside)
        return estimate.fits and estimate.seconds <= max_seconds

    kind: type[OutOfMemory] | type[InvalidConfig]
    if not estimate.fits:
        kind = OutOfMemory
        takes, has = _gib(estimate.peak_memory_bytes), _gib(estimate.device_memory_bytes)
        problem = f"{_shape(work)} take about {takes} of memory, and a sampler has {has}"
    else:
        kind = InvalidConfig
        problem = (
            f"{_shape(work)} in {work.steps} steps take about {_time(estimate.seconds)}, and {_time(max_seconds)} may be taken"
        )
    frames, size = largest_that_fits(work, fits)
    if not frames and size == (0, 0):
        return kind(f"{problem}: nothing of this base fits, so it wants a larger sampler")
    ways = [f"{frames} frame{'s' * (frames > 1)} of that size"] if frames else []
    ways += [f"as many of {size[0]}x{size[1]}"] if size != (0, 0) else []
    advice = "ask for" if free else "tune the clip with"
    return kind(f"{problem}: {advice} {' or '.join(ways)}, which would fit")


def _shape(work: VideoWork) -> str:
    return f"{work.frames} frames of {work.width}x{work.height}"


def _gib(size: int) -> str:
    return f"{size / _GIB:.3g} GiB" if size < 100 * _GIB else f"{size / _GIB:.0f} GiB"


def _time(seconds: float) -> str:
    length, unit = next((pair for pair in _UNITS if seconds >= 2 * pair[0]), _UNITS[-1])
    return f"{seconds / length:.0f} {unit}s"
