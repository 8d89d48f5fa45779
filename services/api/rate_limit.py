"""The limit on each tenant's requests: a token bucket."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from services.api.http.errors import ApiError


class RateLimiter:
    """One bucket for each tenant. It holds a minute's requests, so that a burst passes, and refills evenly.

    Args:
        per_minute: requests of one tenant; None sets no limit.
        clock: monotonic seconds.
    """

    def __init__(self, per_minute: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute, self._clock = per_minute, clock
        self._buckets: dict[str, tuple[float, float]] = {}
        """Tokens left, and when they were counted."""

    def count(self, tenant: str) -> None:
        """Count a request.

        Raises:
            ApiError: 429 `rate_limited`, with the time until the next request may come.
        """
        if self._per_minute is None:
            return
        now, rate = self._clock(), self._per_minute / 60
        tokens, counted = self._buckets.get(tenant, (float(self._per_minute), now))
        tokens = min(float(self._per_minute), tokens + (now - counted) * rate)
        if tokens < 1:
            self._buckets[tenant] = (tokens, now)
            wait = (1 - tokens) / rate
            raise ApiError(
                429,
                "rate_limited",
                f"You may make {self._per_minute} requests a minute: wait as long as retry-after says.",
                retry_after=str(math.ceil(wait)),
                retry_after_ms=str(math.ceil(wait * 1000)),
            )
        self._buckets[tenant] = (tokens - 1, now)
