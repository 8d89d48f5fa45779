"""The objects that `clip_uri` may name: the caller's own uploads and clips, and what the operator allows. Blocks."""

from __future__ import annotations

import re
from pathlib import Path

from registry.errors import InvalidReference, ObjectMissing
from registry.jobs import JobStore
from registry.objects import ObjectStore, parse_uri
from registry.tenants import DEFAULT_TENANT
from services.api.callers import Caller
from services.api.http.errors import ApiError
from services.settings import Settings
from tav.errors import InvalidClip

_UPLOAD = re.compile(r"uploads/(?:([a-z0-9._-]+)/)?[0-9a-f]{32}")
_CLIP = re.compile(r"clips/([0-9a-f]{64})\.mp4")
_UNUSABLE = re.compile(r"[\x00-\x1f\x7f]|(?:^|/)\.{1,2}(?:/|$)")
"""In a key: characters that no S3 takes, and path segments that a server of plain files might follow."""


class ClipSources:
    """Fetches clips, and refuses objects that a caller's jobs may not be tuned on.

    Args:
        settings: the service's bucket, and the buckets that the operator allows.
        objects: the store that clips are fetched from.
        jobs: tell which tenant has a clip.
    """

    def __init__(self, settings: Settings, objects: ObjectStore, jobs: JobStore) -> None:
        self._settings, self._objects, self._jobs = settings, objects, jobs

    def fetch(self, uri: str, caller: Caller, path: Path) -> None:
        """Download a clip.

        An object of the service's bucket that is not the caller's is refused like one that is not there, without a look at it.

        Raises:
            ApiError: 403 `clip_uri_not_allowed`, 413 `clip_too_large`.
            InvalidClip: there is no such object, or it is not the caller's.
        """
        self._check(uri, caller)
        limit = self._settings.clip_limits.max_bytes
        try:
            if self._objects.stat(uri).size > limit:
                raise ApiError(413, "clip_too_large", f"The clip may have {limit} bytes at most: shorten or compress it.")
            self._objects.get_file(uri, path)
        except ObjectMissing as error:
            raise _missing(uri) from error

    def _check(self, uri: str, caller: Caller) -> None:
        try:
            bucket, key = parse_uri(uri)
        except InvalidReference as error:
            raise ApiError(403, "clip_uri_not_allowed", "clip_uri must be s3://bucket/key; or upload the clip.") from error
        if _UNUSABLE.search(key):
            raise ApiError(
                403, "clip_uri_not_allowed", "clip_uri names no object: its key has a part '.' or '..', or a control sign."
            )
        tenant = caller.owner()
        prefixes = self._settings.tenant_clip_prefixes.get(tenant, [])
        if any(uri.startswith(prefix) for prefix in prefixes):
            return
        if bucket == self._settings.s3_bucket:
            if caller.key is not None and not self._owns(key, tenant):
                raise _missing(uri)
        elif bucket not in self._settings.allowed_clip_buckets:
            raise ApiError(
                403,
                "clip_uri_not_allowed",
                f"Clips are not taken from {uri!r}: upload the clip, or ask the operator to add its bucket to "
                "TAV_ALLOWED_CLIP_BUCKETS, or for you alone to TAV_TENANT_CLIP_PREFIXES.",
            )

    def _owns(self, key: str, tenant: str) -> bool:
        if upload := _UPLOAD.fullmatch(key):
            return (upload[1] or DEFAULT_TENANT) == tenant
        clip = _CLIP.fullmatch(key)
        return clip is not None and self._jobs.uses_clip(clip[1], tenant)


def _missing(uri: str) -> InvalidClip:
    return InvalidClip(f"there is no object {uri}: upload it first, or correct clip_uri")
