"""Events of a job or video: server-sent events to snapshots across cut connections. Pure: the transports read and sleep."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from pydantic import ValidationError

from tav_client import schemas
from tav_client._calls import Call, job_events, video_events
from tav_client._errors import APIResponseError, TavClientError, WaitTimeout
from tav_client._retry import StreamPatience

SILENCE = 30.0
"""Seconds without a line, not even a comment (one comes every 5), after which a stream counts as cut."""


@dataclass(frozen=True)
class Event:
    """One server-sent event."""

    name: str
    data: str
    id: str | None


@dataclass
class EventParser:
    """Bytes to events, as the HTML standard says, for lines that end with `\\n` or `\\r\\n`.

    (`httpx.Response.iter_lines` also splits at U+2028 and the like, which JSON may contain.)
    """

    last_id: str | None = None
    """Of the last whole event."""
    _id: str | None = None
    _rest: bytes = b""
    _name: str = ""
    _data: list[str] = field(default_factory=list)

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """Return the events that this chunk completes."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            event = self._line(line.removesuffix(b"\r").decode("utf-8", "replace"))
            if event is not None:
                yield event

    def _line(self, line: str) -> Event | None:
        if line == "":
            self.last_id = self._id or self.last_id
            event = Event(self._name or "message", "\n".join(self._data), self.last_id) if self._data else None
            self._name, self._data = "", []
            return event
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._name = value
        elif name == "id" and "\0" not in value:
            self._id = value
        return None


S = TypeVar("S", schemas.TuningJob, schemas.Video)


class EventStream(Generic[S]):
    """The state of following one job or video: what to open next, what its bytes mean, how long to wait after a cut."""

    def __init__(
        self,
        id: str,
        kind: type[S],
        *,
        deadline: float | None = None,
        last_event_id: str | None = None,
    ) -> None:
        """
        Args:
            id: the job's or video's.
            kind: which of the two.
            deadline: `time.monotonic()` at which to give up with `WaitTimeout`.
            last_event_id: go on after this event.
        """
        self.id = id
        self.finished = False
        self._kind: type[S] = kind
        self._is_job = issubclass(kind, schemas.TuningJob)
        self._what = f"{'Tuning job' if self._is_job else 'Video'} {id}"
        self._deadline = deadline
        self._parser = EventParser(last_event_id)
        self._patience = StreamPatience(f"The stream of {self._what}'s events")

    def call(self) -> Call[None]:
        """Return the call that opens the next stream."""
        self._parser = EventParser(self._parser.last_id)
        return (job_events if self._is_job else video_events)(self.id, self._parser.last_id)

    def silence(self) -> float:
        """Return the seconds without a byte after which to ask `cut`."""
        return min(SILENCE, max(0.001, self._left()))

    def feed(self, chunk: bytes) -> Iterator[S]:
        """Return the snapshots that this chunk completes."""
        self._patience.came()
        for event in self._parser.feed(chunk):
            if event.name != ("job" if self._is_job else "video"):
                continue
            try:
                snapshot = self._kind.model_validate_json(event.data)
            except ValidationError:
                raise APIResponseError(f"{self._what} has events of another shape: check the versions.") from None
            self.finished = snapshot.status.final
            yield snapshot
        if not self.finished:
            self._check()

    def cut(self, error: TavClientError | None = None) -> float:
        """Note that the stream has ended or could not be opened before it was finished.

        Returns:
            Seconds to wait before `call` again.

        Raises:
            WaitTimeout: the deadline has passed.
            TavClientError: `error`, if it will not mend, or the service has been gone for too long.
        """
        self._check()
        return max(0.0, min(self._patience.cut(error), self._left()))

    def _left(self) -> float:
        return float("inf") if self._deadline is None else self._deadline - time.monotonic()

    def _check(self) -> None:
        if self._left() <= 0:
            raise WaitTimeout(f"{self._what} has not ended in the time given; it goes on: wait again, or end it.")
