"""The log of one job: what its tuner logs while it works on it."""

from __future__ import annotations

import logging
import time
from types import TracebackType

from services import logs

_LIMIT = 1 << 20
"""Bytes of one attempt's log; it is cut there."""


class JobLog(logging.Handler):
    """Within its `with` block, keeps what this process logs: all of our own lines, and the warnings of libraries.

    Args:
        first: the first line.
    """

    def __init__(self, first: str) -> None:
        super().__init__(logging.INFO)
        self.setFormatter(_Format("%(asctime)s %(levelname)s %(message)s"))
        self._lines: list[str] = []
        self._size = self._written = 0
        self._first = first

    def __enter__(self) -> JobLog:
        logs.start()
        logging.getLogger().addHandler(self)
        logging.getLogger(__name__).info("%s", self._first)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        logging.getLogger().removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line of the process's log."""
        if self._size > _LIMIT or (record.levelno < logging.WARNING and record.name.partition(".")[0] not in logs.OURS):
            return
        line = self.format(record)
        self._size += len(line)
        self._lines.append(line if self._size <= _LIMIT else "The log ends here: it has become too long.")

    def text(self) -> bytes | None:
        """Return all lines so far; None where there are no new ones since the last call."""
        if len(self._lines) == self._written:
            return None
        self._written = len(self._lines)
        return ("\n".join(self._lines) + "\n").encode()

    def discard_last(self) -> None:
        """Note that the last text could not be written: its lines are new still."""
        self._written = 0


class _Format(logging.Formatter):
    converter = staticmethod(time.gmtime)  # type: ignore[assignment]
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"
