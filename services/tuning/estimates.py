"""Which memory settings to try, and what a job takes in each. Imports no torch, as the gateway uses it too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from services.settings import Settings
from tav.config import ClipConfig, InvertConfig, NetConfig, SampleConfig, TuneConfig
from tav.errors import OutOfMemory
from tav.estimate import Device, Profile, Work, estimate, fastest_that_fits
from tav.memory import MemorySetting, Precision, ladder
from tav.vae import check_size
from tav_client.schemas import Estimate, Estimates, JobMemory, JobParams, TuningParams
from tav_client.schemas import MemorySetting as RequestMemory

_GIB = 2**30


def rungs(params: JobParams | TuningParams, settings: Settings, *, cuda: bool) -> list[MemorySetting]:
    """Return the settings to try, in order: an explicit one alone; with `auto` the ladder's.

    Args:
        params: the job's.
        settings: the service's; they give the precision and ZeRO stage of jobs that have none.
        cuda: whether the tuner computes on a GPU.
    """
    precision = settings.precision_on(cuda)
    if isinstance(params.memory, JobMemory | RequestMemory):
        setting = MemorySetting.model_validate(params.memory.model_dump())
        return [setting.model_copy(update={"precision": setting.precision or precision})]
    return ladder(precision, settings.zero_stage, params.gradient_checkpointing, own_memory=cuda)


def work_of(
    params: JobParams | TuningParams, recommended: dict[str, dict[str, Any]], *, videos: int = 1, gpus: int = 1
) -> Work:
    """Return how much work a job is.

    Args:
        params: the job's.
        recommended: the base's `tav.json`, for what the job leaves out.
        videos: how many are sampled after tuning.
        gpus: how many tune it together.

    Raises:
        InvalidConfig: the size is no pair of multiples of 8.
    """

    def merged(part: str, **own: Any) -> dict[str, Any]:
        return recommended.get(part, {}) | {name: value for name, value in own.items() if value is not None}

    clip = ClipConfig(**merged("clip", num_frames=params.num_frames, size=params.size))
    width, height = clip.size
    check_size(width, height)
    return Work(
        frames=clip.num_frames,
        width=width,
        height=height,
        steps=TuneConfig(**merged("tune", steps=params.steps)).steps,
        inversion_steps=InvertConfig(**merged("invert")).num_inference_steps,
        sampling_steps=SampleConfig(**merged("sample")).num_inference_steps,
        videos=videos,
        attention=NetConfig(**merged("net", attention=params.attention)).attention,
        ranks=gpus,
    )


def beyond(estimates: Estimates, room: int | None) -> OutOfMemory | None:
    """Return why a job cannot be tuned on CPUs, where it would take the memory of other processes. On a GPU it fails alone.

    Args:
        estimates: the job's.
        room: bytes that a tuner can have; None: it is not known.
    """
    entry = estimates.settings[estimates.chosen]
    if room is None or entry.memory_error is None or entry.peak_memory_bytes * (1 + entry.memory_error) <= room:
        return None
    (width, height), takes = estimates.size, f"about {entry.peak_memory_bytes / _GIB:.3g} GiB of memory"
    return OutOfMemory(
        f"{estimates.num_frames} frames of {width}x{height} take {takes} to tune, and a tuner has {room / _GIB:.3g} GiB: "
        "use fewer frames or a smaller size"
    )


def forecast(
    work: Work, profile: Profile, settings: list[MemorySetting], device_in: Callable[[Precision], Device]
) -> Estimates:
    """Estimate each setting, and choose the fastest that fits.

    Args:
        work: see `work_of`.
        profile: the base's.
        settings: see `rungs`; all of one precision.
        device_in: returns the device's speeds in a precision.
    """
    device = device_in(settings[0].precision or "fp32")
    estimates = [Estimate.model_validate(estimate(profile, work, setting, device).model_dump()) for setting in settings]
    return Estimates(
        num_frames=work.frames,
        size=(work.width, work.height),
        steps=work.steps,
        videos=work.videos,
        gpus=work.ranks,
        settings=estimates,
        chosen=fastest_that_fits(profile, work, settings, device),
    )
