"""/v1/estimates, and the estimate that a job has from the start."""

from __future__ import annotations

import asyncio
from functools import partial

import ray
from fastapi import APIRouter, Request

from services.api.bodies import read_json
from services.api.errors import invalid
from services.api.openapi import json_body, problems
from services.api.parts import Parts
from services.settings import Settings
from services.tuning.memory import forecast, rungs, work_of
from tav.bases import recommended
from tav.estimate import Profile
from tav.estimate.device import KNOWN, known
from tav.estimate.profile import of_base
from tav_client.schemas import Estimate, EstimateCreate, Estimates, TuningJobCreate

_TYPE = "accelerator_type:"


def expected(wanted: TuningJobCreate, settings: Settings, gpus: int) -> Estimate | None:
    """What a job will take in the setting that it will begin with; None where base or device are not known. Blocks."""
    base = wanted.base or settings.base
    profile, device = of_base(base), wanted.gpu_type or likely_device(settings)
    if profile is None or device not in KNOWN:
        return None
    asked = EstimateCreate(base=base, params=wanted.params, videos=len(wanted.validation_prompts), gpus=gpus, device=device)
    found = _estimates(asked, base, profile, device, settings)
    return found.settings[found.chosen]


def likely_device(settings: Settings) -> str | None:
    """What tuners of jobs that ask for no GPU type compute on; None: nobody knows before they do."""
    if settings.device == "cpu":
        return "cpu"
    cluster = ray.cluster_resources() if ray.is_initialized() else {}
    types = settings.gpu_types or [name.removeprefix(_TYPE) for name in sorted(cluster) if name.startswith(_TYPE)]
    found = next((name for name in types if name in KNOWN), None)
    if found is None and settings.device == "auto" and not cluster.get("GPU"):
        return "cpu"
    return found


def _estimates(asked: EstimateCreate, base: str, profile: Profile, device: str, settings: Settings) -> Estimates:
    steps = rungs(asked.params, settings, cuda=device != "cpu")
    work = work_of(asked.params, recommended(base), videos=asked.videos, gpus=asked.gpus)
    return forecast(work, profile, steps, partial(known, device))


def router(parts: Parts) -> APIRouter:
    """The call on estimates."""
    routes = APIRouter(prefix="/estimates", tags=["tuning jobs"])
    settings = parts.settings

    @routes.post("", summary="Estimate a tuning job", responses=problems(415, 422), openapi_extra=json_body(EstimateCreate))
    async def create(request: Request) -> Estimates:
        """Peak memory and time of a job in each memory setting, before it is submitted. Nothing is kept."""
        asked = await read_json(request, EstimateCreate)
        base = asked.base or settings.base
        profile = await asyncio.to_thread(of_base, base)
        if profile is None:
            raise invalid(
                f"What base {base!r} costs is not known here: `tav estimate --base` on a machine that has it counts it.", "base"
            )
        device = asked.device or await asyncio.to_thread(likely_device, settings)
        if device not in KNOWN:
            problem = "Which GPUs the service will have is not known" if device is None else f"No device {device!r} is known"
            raise invalid(f"{problem}: name one of {', '.join(KNOWN)}.", "device")
        return _estimates(asked, base, profile, device, settings)

    return routes
