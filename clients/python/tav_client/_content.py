"""The bytes of a video."""

from __future__ import annotations

import os
from pathlib import Path

from tav_client._files import written_whole
from tav_client._notebook import player


class VideoContent(bytes):
    """A video's bytes, knowing where they come from."""

    content_type: str
    """`video/mp4`, `video/webm`, `image/gif`, or an image's."""
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
        with written_whole(path) as file:
            file.write(self)
        return Path(path)

    def _repr_html_(self) -> str:
        return player(self, self.content_type)
