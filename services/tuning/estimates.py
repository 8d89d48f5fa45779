"""Which memory settings a job is tried in, and what each is estimated to take. Imports no torch: the gateway asks too."""

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
from tav_client.schemas import MemorySetting as AskedMemory

_GIB = 2**30


def rungs(params: JobParams | TuningParams, settings: Settings, *, cuda: bool) -> list[MemorySetting]:
    """The settings to try, in order: an explicit one alone; with `auto` the ladder's.

    Args:
        params: the job's.
        settings: the service's; they name the precision and stage of jobs that do not.
        cuda: whether the tuner computes on a GPU.
    """
    precision = settings.precision_on(cuda)
    if isinstance(params.memory, JobMemory | AskedMemory):
        asked = MemorySetting.model_validate(params.memory.model_dump())
        return [asked.model_copy(update={"precision": asked.precision or precision})]
    return ladder(precision, settings.zero_stage, params.gradient_checkpointing, own_memory=cuda)


def work_of(
    params: JobParams | TuningParams, recommended: dict[str, dict[str, Any]], *, videos: int = 1, gpus: int = 1
) -> Work:
    """What a job does.

    Args:
        params: its own.
        recommended: of the base, its `tav.json`, for what it leaves out.
        videos: sampled after tuning.
        gpus: that tune it together.

    Raises:
        InvalidConfig: the size is no pair of multiples of 8.
    """

    def settled(part: str, **given: Any) -> dict[str, Any]:
        return recommended.get(part, {}) | {name: value for name, value in given.items() if value is not None}

    clip = ClipConfig(**settled("clip", num_frames=params.num_frames, size=params.size))
    width, height = clip.size
    check_size(width, height)
    return Work(
        frames=clip.num_frames,
        width=width,
        height=height,
        steps=TuneConfig(**settled("tune", steps=params.steps)).steps,
        inversion_steps=InvertConfig(**settled("invert")).num_inference_steps,
        sampling_steps=SampleConfig(**settled("sample")).num_inference_steps,
        videos=videos,
        attention=NetConfig(**settled("net", attention=params.attention)).attention,
        ranks=gpus,
    )


def beyond(found: Estimates, room: int | None) -> OutOfMemory | None:
    """Why a job cannot be tuned on CPUs, where it would take the memory of all who work there. On a GPU it would fail alone.

    Args:
        found: the job's estimates.
        room: bytes that a tuner can have; None: nobody knows.
    """
    entry = found.settings[found.chosen]
    if room is None or entry.memory_error is None or entry.peak_memory_bytes * (1 + entry.memory_error) <= room:
        return None
    (width, height), takes = found.size, f"about {entry.peak_memory_bytes / _GIB:.3g} GiB of memory"
    return OutOfMemory(
        f"{found.num_frames} frames of {width}x{height} take {takes} to tune, and a tuner has {room / _GIB:.3g} GiB: "
        "use fewer frames or a smaller size"
    )


def forecast(work: Work, profile: Profile, steps: list[MemorySetting], device_in: Callable[[Precision], Device]) -> Estimates:
    """An estimate of each setting, and which of them is taken: the fastest that fits.

    Args:
        work: see `work_of`.
        profile: of the base.
        steps: see `rungs`; all of one precision.
        device_in: the device, as it is in a precision.
    """
    device = device_in(steps[0].precision or "fp32")
    found = [Estimate.model_validate(estimate(profile, work, setting, device).model_dump()) for setting in steps]
    return Estimates(
        num_frames=work.frames,
        size=(work.width, work.height),
        steps=work.steps,
        videos=work.videos,
        gpus=work.ranks,
        settings=found,
        chosen=fastest_that_fits(profile, work, steps, device),
    )
