"""When a request is sent again, and after how long. Pure: the transports ask, and sleep."""

from __future__ import annotations

import math
import random
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from tav_client._calls import Call
from tav_client._errors import APIConnectionError, APIStatusError, TavClientError

PATIENCE = 60.0
"""Seconds without a stream after which the service counts as gone."""
REFUSED = frozenset({429, 503})
"""Statuses that say the request was not taken up, so that any call may be repeated."""


def asked_delay(headers: httpx.Headers) -> float | None:
    """Return the seconds that `retry-after-ms` or `retry-after` (seconds or a date) asks to wait; None if neither does."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        text = headers.get(name, "")
        try:
            seconds = float(text) * unit
        except ValueError:
            continue
        if math.isfinite(seconds):
            return max(0.0, seconds)
    try:
        return max(0.0, parsedate_to_datetime(headers.get("retry-after", "")).timestamp() - time.time())
    except ValueError:
        return None


@dataclass(frozen=True)
class RetryPolicy:
    """How patient the client is with one call."""

    max_retries: int = 2
    first_delay: float = 0.5
    """Seconds before the first repetition where the service does not say; twice as long each time."""
    longest_delay: float = 8.0
    longest_asked: float = 60.0
    """A service that asks for more than this is not waited for."""

    def backoff(self, attempt: int) -> float:
        """Return the seconds after the failed attempt number `attempt` (from 0), spread so that many clients do not come back
        at once."""
        return min(self.first_delay * 2.0**attempt, self.longest_delay) * random.uniform(0.75, 1.0)

    def after_answer(self, call: Call[Any], response: httpx.Response, attempt: int) -> float | None:
        """Return the seconds to wait before sending `call` again; None: the response stands."""
        status = response.status_code
        wish = response.headers.get("x-should-retry")
        if status < 400 or attempt >= self.max_retries or wish == "false":
            return None
        if wish != "true":
            if status not in (408, 409, 429) and status < 500:
                return None
            if not call.repeatable and status not in REFUSED:
                return None
        delay = asked_delay(response.headers)
        if delay is None:
            return self.backoff(attempt)
        return delay if delay <= self.longest_asked else None

    def after_silence(self, call: Call[Any], error: httpx.RequestError, attempt: int) -> float | None:
        """Return the seconds to wait before sending `call` again; None: give up."""
        never_sent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
        may_mend = isinstance(error, httpx.TransportError) and not isinstance(
            error, httpx.UnsupportedProtocol | httpx.LocalProtocolError
        )
        if attempt >= self.max_retries or not may_mend or not (call.repeatable or never_sent):
            return None
        return self.backoff(attempt)


class StreamPatience:
    """How long to wait before a stream that was cut is opened again, and when to give up."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._cuts = 0
        self._cut_since: float | None = None
        self._backoff = RetryPolicy()

    def came(self) -> None:
        """Note that something has come."""
        self._cuts, self._cut_since = 0, None

    def cut(self, error: TavClientError | None = None) -> float:
        """Note that the stream has ended before its time, or could not be opened.

        Returns:
            Seconds to wait before it is opened again.

        Raises:
            TavClientError: `error`, if it will not mend, or the service has been gone for too long.
        """
        if isinstance(error, APIStatusError) and error.status < 500:
            raise error
        now = time.monotonic()
        self._cut_since = self._cut_since or now
        if now - self._cut_since > PATIENCE:
            raise error or APIConnectionError(f"{self._what} keeps ending before its time.")
        delay = self._backoff.backoff(self._cuts)
        self._cuts += 1
        return delay
