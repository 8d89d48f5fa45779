"""One job's own log: what its tuner says while it works on it."""

from __future__ import annotations

import logging
import time
from types import TracebackType

from services import logs

_LIMIT = 1 << 20
"""Bytes of one attempt's log; a job that says more is cut there."""


class JobLog(logging.Handler):
    """Within its `with` block, what this process logs is the job's: all of our own lines, and others' warnings.

    Args:
        first: The first line.
    """

    def __init__(self, first: str) -> None:
        super().__init__(logging.INFO)
        self.setFormatter(_Format("%(asctime)s %(levelname)s %(message)s"))
        self._lines: list[str] = []
        self._size = self._read = 0
        self._first = first

    def __enter__(self) -> JobLog:
        logs.start()
        logging.getLogger().addHandler(self)
        logging.getLogger(__name__).info("%s", self._first)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        logging.getLogger().removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        if self._size > _LIMIT or (record.levelno < logging.WARNING and record.name.partition(".")[0] not in logs.OURS):
            return
        line = self.format(record)
        self._size += len(line)
        self._lines.append(line if self._size <= _LIMIT else "The log ends here: it has become too long.")

    def news(self) -> bytes | None:
        """All lines so far, if there are new ones since the last call."""
        if len(self._lines) == self._read:
            return None
        self._read = len(self._lines)
        return ("\n".join(self._lines) + "\n").encode()

    def again(self) -> None:
        """What `news` gave last could not be kept: it is news still."""
        self._read = 0


class _Format(logging.Formatter):
    converter = staticmethod(time.gmtime)  # type: ignore[assignment]
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"
