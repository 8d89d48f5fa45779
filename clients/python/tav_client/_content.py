"""The bytes of a video."""

from __future__ import annotations

import os
from pathlib import Path


class VideoContent(bytes):
    """A video's bytes, knowing where they come from."""

    content_type: str
    """`video/mp4` or `image/gif`."""
    model_version: str | None
    """`name/version` that was sampled."""
    video_id: str | None

    def __new__(cls, data: bytes, *, content_type: str, model_version: str | None, video_id: str | None) -> VideoContent:
        self = super().__new__(cls, data)
        self.content_type = content_type
        self.model_version = model_version
        self.video_id = video_id
        return self

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes the file whole or not at all; folders on the way are made.

        Returns:
            Where it is.
        """
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            part.write_bytes(self)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
        return target
