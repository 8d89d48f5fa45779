"""`client.uploads`: large clips, sent to S3 directly."""

from __future__ import annotations

import mimetypes
import os
from pathlib import Path

from tav_client import _calls
from tav_client._async.transport import AsyncTransport


class AsyncUploads:
    """Uploads past the service, for clips that are too large to go through it."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def create(self, clip: str | os.PathLike[str]) -> str:
        """Upload a clip to the address that the service names.

        Args:
            clip: A video file.

        Returns:
            Its `clip_uri`, for `jobs.create`.

        Raises:
            InvalidRequest: there is no such file.
            BadRequest: it is larger than the service allows.
        """
        path = Path(clip)
        _calls.check_clip(path)
        kind = _media_type(path)
        upload = await self._transport.send(_calls.create_upload(path.stat().st_size, kind))
        await self._transport.put(upload, path)
        return upload.clip_uri


def _media_type(path: Path) -> str:
    """As the service takes it; the system's table takes camcorders' files for 3-D models, and .ts for translations."""
    if path.suffix.lower() in (".ts", ".mts", ".m2ts"):
        return "video/mp2t"
    kind = mimetypes.guess_type(path.name)[0] or ""
    return kind if kind.startswith("video/") or kind in ("image/gif", "image/webp") else "video/mp4"
