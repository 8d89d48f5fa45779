"""A video's bytes as a response: variants, ranges, and entity tags."""

from __future__ import annotations

import hashlib
import io
import re
from enum import StrEnum

import av
import numpy as np
from fastapi import Request, Response
from PIL import Image

from services.api.http.errors import ApiError
from services.api.unread_texts import unread_header
from tav.video import CONTENT_TYPES
from tav_client.schemas import Video

_SHEET_COLUMNS = 4
_SUFFIXES = {media_type: f".{name}" for name, media_type in CONTENT_TYPES.items()} | {"image/jpeg": ".jpg"}
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


class Variant(StrEnum):
    """What is made of a video."""

    video = "video"
    """The video itself."""
    thumbnail = "thumbnail"
    """Its middle frame as a JPEG."""
    spritesheet = "spritesheet"
    """All its frames as one JPEG, four in a row."""


def render(video: Video, data: bytes, variant: Variant) -> tuple[bytes, str]:
    """Return the variant's bytes and media type. Blocks: it decodes the video."""
    if variant is Variant.video:
        return data, CONTENT_TYPES[video.format]
    with av.open(io.BytesIO(data)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    if variant is Variant.thumbnail:
        return _jpeg(frames[len(frames) // 2]), "image/jpeg"
    height, width, _ = frames[0].shape
    rows = -(-len(frames) // _SHEET_COLUMNS)
    sheet = np.zeros((rows * height, _SHEET_COLUMNS * width, 3), np.uint8)
    for i, frame in enumerate(frames):
        row, column = divmod(i, _SHEET_COLUMNS)
        sheet[row * height : (row + 1) * height, column * width : (column + 1) * width] = frame
    return _jpeg(sheet), "image/jpeg"


def _jpeg(picture: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def headers_of(video: Video) -> dict[str, str]:
    """Return the headers that describe the video of a response."""
    return {"x-tav-model-version": video.model_version, "x-tav-video-id": video.id, **unread_header(video.unread)}


def disposition(model_version: str, media_type: str, video_id: str = "") -> dict[str, str]:
    """Return the header that names the file which a browser or `curl -OJ` saves, as in `red-ball-1-c41d7e0f.mp4`."""
    name = "-".join(filter(None, [re.sub(r"[^A-Za-z0-9._-]", "-", model_version), video_id[:8]]))
    return {"content-disposition": f'inline; filename="{name}{_SUFFIXES[media_type]}"'}


def response(request: Request, video: Video, data: bytes, media_type: str) -> Response:
    """Return all bytes, or the one requested range (RFC 9110); a request for several ranges gets all bytes.

    Raises:
        ApiError: 416, the range begins after the end.
    """
    etag = f'"{hashlib.sha256(data).hexdigest()}"'
    described = headers_of(video) | disposition(video.model_version, media_type, video.id)
    headers = {**described, "etag": etag, "accept-ranges": "bytes", "cache-control": "private, no-cache"}
    if etag in re.split(r"\s*,\s*", request.headers.get("if-none-match", "").replace("W/", "")):
        return Response(status_code=304, headers=headers)
    match = _RANGE.fullmatch(request.headers.get("range", "").strip())
    if match is None or match[0] == "bytes=-" or request.headers.get("if-range", etag) != etag:
        return Response(data, media_type=media_type, headers=headers)
    first, last = match.groups()
    start = int(first) if first else max(0, len(data) - int(last))
    end = min(int(last), len(data) - 1) if first and last else len(data) - 1
    if start >= len(data):
        detail = f"The content has {len(data)} bytes: ask for a range within them."
        raise ApiError(416, "range_not_satisfiable", detail, content_range=f"bytes */{len(data)}")
    if start > end:  # not a valid range
        return Response(data, media_type=media_type, headers=headers)
    headers["content-range"] = f"bytes {start}-{end}/{len(data)}"
    return Response(data[start : end + 1], 206, media_type=media_type, headers=headers)
