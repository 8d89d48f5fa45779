"""Fetching a video into a file: what to ask for next, and what came. Pure but for the file; the transports read and sleep."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import BinaryIO

import httpx

from tav_client._calls import Call, Variant, content_stream
from tav_client._content import check_name

OnBytes = Callable[[int, int | None], None]


class Download:
    """The state of one download.

    Args:
        id: the video's.
        variant: which of its contents.
        file: open for writing, at its beginning.
        name: what it will be called; an ending that the content is not of is refused before anything is written.
        on_bytes: called after every piece with the bytes that are there and the bytes that there will be, if that is known.
    """

    def __init__(self, id: str, variant: Variant, file: BinaryIO, name: str | os.PathLike[str], on_bytes: OnBytes) -> None:
        self.complete = False
        self._id, self._variant, self._file, self._name, self._on_bytes = id, variant, file, name, on_bytes
        self._done = 0
        self._total: int | None = None
        self._etag: str | None = None

    def call(self) -> Call[None]:
        """Return the request for what is missing."""
        self.complete = False
        headers = {}
        if self._done and self._etag:
            headers = {"Range": f"bytes={self._done}-", "If-Range": self._etag}
        return content_stream(self._id, self._variant, headers, self._begin)

    def feed(self, chunk: bytes) -> None:
        """Write a chunk of bytes."""
        self._file.write(chunk)
        self._done += len(chunk)
        self.complete = self._total is None or self._done >= self._total
        self._on_bytes(self._done, self._total)

    def _begin(self, response: httpx.Response) -> None:
        check_name(self._name, response.headers.get("content-type", ""))
        if response.status_code != 206:  # all of it, from the first byte on
            self._file.seek(0)
            self._file.truncate()
            self._done = 0
        self._etag = response.headers.get("etag")
        length = response.headers.get("content-length", "")
        self._total = self._done + int(length) if length.isdecimal() else None
