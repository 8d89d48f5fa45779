"""/v1/uploads: large clips go straight to S3."""

from __future__ import annotations

import asyncio
import time
import uuid

from fastapi import APIRouter, Request

from services.api.callers import Who
from services.api.deps import Parts
from services.api.http.bodies import read_json
from services.api.http.errors import ApiError
from services.api.http.openapi import json_body, problems
from tav_client.schemas import Upload, UploadCreate

PREFIX = "uploads/"
"""Then the tenant, so that what a tenant uploads is its own."""
_VALID_SECONDS = 3600
_KEPT_SECONDS = 24 * 3600


def router(parts: Parts) -> APIRouter:
    """The call on uploads."""
    routes = APIRouter(prefix="/uploads", tags=["tuning jobs"])

    @routes.post(
        "",
        status_code=201,
        summary="Create an upload",
        responses=problems(413, 415, 422, 503),
        openapi_extra=json_body(UploadCreate),
    )
    async def create(request: Request, caller: Who) -> Upload:
        """PUT the file's bytes to `url` with `headers`, then name `clip_uri` in a tuning job. Kept for a day."""
        wanted = await read_json(request, UploadCreate)
        limit = parts.settings.clip_limits.max_bytes
        if wanted.bytes > limit:
            raise ApiError(413, "clip_too_large", f"The clip may have {limit} bytes at most: shorten or compress it.")
        await asyncio.to_thread(sweep, parts)
        key = f"{PREFIX}{caller.one()}/{uuid.uuid4().hex}"
        expires_at = int(time.time()) + _VALID_SECONDS
        url = parts.objects.presign_put(key, wanted.content_type, wanted.bytes, _VALID_SECONDS)
        headers = {"Content-Type": wanted.content_type}
        return Upload(url=url, headers=headers, clip_uri=parts.objects.uri(key), expires_at=expires_at)

    return routes


def sweep(parts: Parts, now: float | None = None) -> None:
    """Remove uploads that are older than a day: a job keeps its clip elsewhere, by content."""
    oldest = (now or time.time()) - _KEPT_SECONDS
    for item in parts.objects.list(PREFIX):
        if item.modified < oldest:
            parts.objects.delete(item.uri)
