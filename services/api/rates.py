"""How many requests a tenant may make: a bucket of tokens that fills again evenly."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from services.api.http.errors import ApiError


class Rates:
    """One bucket for each tenant; it holds a minute's requests, so that a burst passes.

    Args:
        per_minute: None: no limit.
        clock: Seconds that only grow.
    """

    def __init__(self, per_minute: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute, self._clock = per_minute, clock
        self._left: dict[str, tuple[float, float]] = {}

    def take(self, tenant: str) -> None:
        """Count a request.

        Raises:
            ApiError: 429 `rate_limited`, with the time until the next one may come.
        """
        if self._per_minute is None:
            return
        now, rate = self._clock(), self._per_minute / 60
        left, since = self._left.get(tenant, (float(self._per_minute), now))
        left = min(float(self._per_minute), left + (now - since) * rate)
        if left < 1:
            self._left[tenant] = (left, now)
            wait = (1 - left) / rate
            raise ApiError(
                429,
                "rate_limited",
                f"You may make {self._per_minute} requests a minute: wait as long as retry-after says.",
                retry_after=str(math.ceil(wait)),
                retry_after_ms=str(math.ceil(wait * 1000)),
            )
        self._left[tenant] = (left - 1, now)
