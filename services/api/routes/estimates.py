"""/v1/estimates, and the estimate that a job has from the start."""

from __future__ import annotations

import asyncio
from functools import partial

from fastapi import APIRouter, Request

from services.api.deps import Parts
from services.api.http.bodies import read_json
from services.api.http.errors import invalid
from services.api.http.openapi import json_body, problems
from services.compute import described, likely_device, tuner_memory
from services.settings import Settings
from services.tuning.estimates import beyond, forecast, rungs, work_of
from tav.bases import recommended
from tav.estimate import Profile
from tav.estimate.device import KNOWN
from tav.estimate.profile import of_base, of_hub
from tav_client.schemas import Estimate, EstimateCreate, Estimates, TuningJobCreate


def expected(wanted: TuningJobCreate, settings: Settings, gpus: int) -> Estimate | None:
    """What a job will take in the setting that it will begin with; None where base or device are not known. Blocks.

    Raises:
        ApiError: 422, on CPUs, where it takes more memory than any node has.
    """
    base = wanted.base or settings.base
    profile, device = of_base(base), wanted.gpu_type or likely_device(settings)
    if profile is None or device not in KNOWN:
        return None
    asked = EstimateCreate(base=base, params=wanted.params, videos=len(wanted.validation_prompts), gpus=gpus, device=device)
    found = _estimates(asked, base, profile, device, settings)
    if refused := beyond(found, tuner_memory(settings)):
        raise invalid(f"{refused}.", "params")
    return found.settings[found.chosen]


def _ours(base: str, settings: Settings) -> bool:
    """Whether the operator named it: then it may be a path. What callers name is none."""
    return base == "offline" or base in settings.served_bases


def _estimates(asked: EstimateCreate, base: str, profile: Profile, device: str, settings: Settings) -> Estimates:
    steps = rungs(asked.params, settings, cuda=device != "cpu")
    defaults = recommended(base) if _ours(base, settings) else {}
    work = work_of(asked.params, defaults, videos=asked.videos, gpus=asked.gpus)
    return forecast(work, profile, steps, partial(described, device, settings=settings))


def router(parts: Parts) -> APIRouter:
    """The call on estimates."""
    routes = APIRouter(prefix="/estimates", tags=["tuning jobs"])
    settings = parts.settings

    @routes.post("", summary="Estimate a tuning job", responses=problems(415, 422), openapi_extra=json_body(EstimateCreate))
    async def create(request: Request) -> Estimates:
        """Peak memory and time of a job in each memory setting, before it is submitted. Nothing is kept."""
        asked = await read_json(request, EstimateCreate)
        base = asked.base or settings.base
        profile = await asyncio.to_thread(of_base if _ours(base, settings) else of_hub, base)
        if profile is None:
            raise invalid(
                f"What base {base!r} costs is not known here: `tav estimate --base` on a machine that has it counts it.", "base"
            )
        device = asked.device or await asyncio.to_thread(likely_device, settings)
        if device not in KNOWN:
            problem = "Which GPUs the service will have is not known" if device is None else f"No device {device!r} is known"
            raise invalid(f"{problem}: name one of {', '.join(KNOWN)}.", "device")
        return await asyncio.to_thread(_estimates, asked, base, profile, device, settings)

    return routes
