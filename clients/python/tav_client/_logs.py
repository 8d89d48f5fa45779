"""The log of a job: bytes to text, across cut connections. Pure: the transports read and sleep."""

from __future__ import annotations

import codecs

from tav_client._calls import Call, job_log_stream
from tav_client._errors import TavClientError
from tav_client._retry import StreamPatience

SILENCE = 60.0
"""Seconds without a byte after which the stream is opened again: a silent log cannot be told from a cut connection."""


class LogStream:
    """The state of following one log. Each stream begins with its first byte: what was given already is left out."""

    def __init__(self, id: str) -> None:
        self.id = id
        self._length = 0
        self._to_skip = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._patience = StreamPatience(f"The log of tuning job {id}")

    def call(self, follow: bool = True) -> Call[None]:
        """Return the call that opens the next stream; `follow`: it lasts until the job has ended."""
        self._to_skip = self._length
        return job_log_stream(self.id, follow, lambda _: self._patience.came())

    def feed(self, chunk: bytes) -> str:
        """Return the new text in a chunk."""
        new = chunk[self._to_skip :]
        self._to_skip -= len(chunk) - len(new)
        self._length += len(new)
        return self._decoder.decode(new)

    def cut(self, error: TavClientError | None = None) -> float:
        """Return the seconds to wait before the next stream, where one ended before the job did.

        Raises:
            TavClientError: it will not mend, or has been so for too long.
        """
        return self._patience.cut(error)
