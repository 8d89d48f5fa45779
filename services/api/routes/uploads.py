"""/v1/uploads: large clips go straight to S3."""

from __future__ import annotations

import asyncio
import time
import uuid

from fastapi import APIRouter, Request

from registry.objects import ObjectStore
from services.api.deps import CurrentCaller, ObjectStoreDep, SettingsDep
from services.api.http.bodies import read_json
from services.api.http.errors import ApiError
from services.api.http.openapi import json_body, problems
from tav_client.schemas import Upload, UploadCreate

router = APIRouter(prefix="/uploads", tags=["tuning jobs"])

PREFIX = "uploads/"
"""Followed by the tenant, so that an upload has an owner."""
_URL_SECONDS = 3600
_RETENTION_SECONDS = 24 * 3600


@router.post(
    "",
    status_code=201,
    summary="Create an upload",
    responses=problems(413, 415, 422, 503),
    openapi_extra=json_body(UploadCreate),
)
async def create_upload(request: Request, objects: ObjectStoreDep, settings: SettingsDep, caller: CurrentCaller) -> Upload:
    """PUT the file's bytes to `url` with `headers`, then name `clip_uri` in a tuning job. Kept for a day."""
    upload = await read_json(request, UploadCreate)
    limit = settings.clip_limits.max_bytes
    if upload.bytes > limit:
        raise ApiError(413, "clip_too_large", f"The clip may have {limit} bytes at most: shorten or compress it.")
    await asyncio.to_thread(remove_old_uploads, objects)
    key = f"{PREFIX}{caller.owner()}/{uuid.uuid4().hex}"
    expires_at = int(time.time()) + _URL_SECONDS
    url = objects.presign_put(key, upload.content_type, upload.bytes, _URL_SECONDS)
    headers = {"Content-Type": upload.content_type}
    return Upload(url=url, headers=headers, clip_uri=objects.uri(key), expires_at=expires_at)


def remove_old_uploads(objects: ObjectStore, now: float | None = None) -> None:
    """Remove uploads that are older than a day: a job stores its clip elsewhere, by content.

    Args:
        objects: the service's bucket.
        now: UNIX seconds; left out, the clock's.
    """
    oldest = (now or time.time()) - _RETENTION_SECONDS
    for item in objects.list(PREFIX):
        if item.modified < oldest:
            objects.delete(item.uri)
