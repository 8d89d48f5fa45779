"""Estimates of a tuning job's memory and time, before it is created. Blocks."""

from __future__ import annotations

from functools import partial

from services.api.http.errors import invalid
from services.api.job_requests import check_size
from services.compute import device_of, likely_device, tuner_memory
from services.settings import Settings
from services.tuning.estimates import beyond, forecast, rungs, work_of
from tav.bases import recommended
from tav.estimate import Profile
from tav.estimate.device import KNOWN
from tav.estimate.profile import of_base, of_hub
from tav_client.schemas import Estimate, EstimateCreate, Estimates, TuningJobCreate


def estimate_job(request: TuningJobCreate, base: str, gpus: int, settings: Settings) -> Estimate | None:
    """Return what a job will take in the memory setting that it will begin with; None where base or device are not known.

    Raises:
        ApiError: 422, on CPUs, where it takes more memory than any node has.
    """
    profile, device = of_base(base), request.gpu_type or likely_device(settings)
    if profile is None or device not in KNOWN:
        return None
    videos = len(request.validation_prompts)
    create = EstimateCreate(base=base, params=request.params, videos=videos, gpus=gpus, device=device)
    estimates = _forecast(create, base, profile, device, settings)
    if error := beyond(estimates, tuner_memory(settings)):
        raise invalid(f"{error}.", "params")
    return estimates.settings[estimates.chosen]


def estimate(request: EstimateCreate, settings: Settings) -> Estimates:
    """Return what a job takes in each memory setting.

    Raises:
        ApiError: 422, base or device are not known, or the size is none that a job may have.
    """
    check_size(request.params.size)
    base = request.base or settings.base
    profile = of_base(base) if _is_served(base, settings) else of_hub(base)
    if profile is None:
        raise invalid(
            f"What base {base!r} costs is not known here: `tav estimate --base` on a machine that has it counts it.", "base"
        )
    device = request.device or likely_device(settings)
    if device not in KNOWN:
        problem = "Which GPUs the service will have is not known" if device is None else f"No device {device!r} is known"
        raise invalid(f"{problem}: name one of {', '.join(KNOWN)}.", "device")
    return _forecast(request, base, profile, device, settings)


def _is_served(base: str, settings: Settings) -> bool:
    """Return whether the operator named the base, so that it may be a path; a base that only a caller names may not."""
    return base == "offline" or base in settings.served_bases


def _forecast(request: EstimateCreate, base: str, profile: Profile, device: str, settings: Settings) -> Estimates:
    memory_settings = rungs(request.params, settings, cuda=device != "cpu")
    defaults = recommended(base) if _is_served(base, settings) else {}
    work = work_of(request.params, defaults, videos=request.videos, gpus=request.gpus)
    return forecast(work, profile, memory_settings, partial(device_of, device, settings=settings))
