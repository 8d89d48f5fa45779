"""The bytes of a video, and what a file's name says of them."""

from __future__ import annotations

import os
from pathlib import Path

from tav_client._errors import InvalidRequest
from tav_client._files import written_whole
from tav_client._notebook import player

_ENDINGS = {
    "video/mp4": (".mp4", ".m4v"),
    "video/webm": (".webm",),
    "image/gif": (".gif",),
    "image/jpeg": (".jpg", ".jpeg"),
}
_FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".webm": "webm", ".gif": "gif"}


def format_of_name(path: str | os.PathLike[str], format: str | None = None) -> str | None:
    """Return the format to ask for a video in; None: the service's default.

    Args:
        path: where it is to be written. Its ending says the format; a name without one fits any.
        format: what was asked for besides.

    Raises:
        InvalidRequest: the ending is no video's, or another format's.
    """
    ending = Path(path).suffix.lower()
    if not ending:
        return format
    named = _FORMATS.get(ending)
    if named is None:
        raise InvalidRequest(f"{os.fspath(path)!r} does not end with .mp4, .webm or .gif: videos are made in these formats.")
    if format not in (None, named):
        raise InvalidRequest(f"{os.fspath(path)!r} is not a name for {format}: end it with .{format}, or leave the format out.")
    return named


def check_name(path: str | os.PathLike[str], content_type: str) -> None:
    """Check that a file's ending says what its content is.

    Raises:
        InvalidRequest: it says something else.
    """
    ending = Path(path).suffix.lower()
    endings = _ENDINGS.get(content_type.partition(";")[0].strip().lower(), ())
    if ending and endings and ending not in endings:
        raise InvalidRequest(f"{os.fspath(path)!r} would hold {content_type}: end its name with {endings[0]}.")


class VideoContent(bytes):
    """A video's bytes, knowing where they come from."""

    content_type: str
    """`video/mp4`, `video/webm`, `image/gif`, or an image's."""
    model_version: str | None
    """`name/version` that was sampled."""
    video_id: str | None
    unread: dict[str, str]
    """What of its prompts the base did not read, being too long for it, by field."""

    def __new__(
        cls, data: bytes, *, content_type: str, model_version: str | None, video_id: str | None, unread: dict[str, str]
    ) -> VideoContent:
        self = super().__new__(cls, data)
        self.content_type = content_type
        self.model_version = model_version
        self.video_id = video_id
        self.unread = unread
        return self

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the file whole or not at all; missing folders are created.

        Returns:
            Where it is.

        Raises:
            InvalidRequest: the name's ending is another format's.
        """
        check_name(path, self.content_type)
        with written_whole(path) as file:
            file.write(self)
        return Path(path)

    def _repr_html_(self) -> str:
        return player(self, self.content_type)
