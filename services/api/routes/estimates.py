"""/v1/estimates."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request

from services.api.deps import SettingsDep
from services.api.estimates import estimate
from services.api.http.bodies import read_json
from services.api.http.openapi import json_body, problems
from tav_client.schemas import EstimateCreate, Estimates

router = APIRouter(prefix="/estimates", tags=["tuning jobs"])


@router.post("", summary="Estimate a tuning job", responses=problems(415, 422), openapi_extra=json_body(EstimateCreate))
async def create_estimate(request: Request, settings: SettingsDep) -> Estimates:
    """Peak memory and time of a job in each memory setting, before it is submitted. Nothing is kept."""
    return await asyncio.to_thread(estimate, await read_json(request, EstimateCreate), settings)
