"""The header `Idempotency-Key`: a repeated create returns what the first one created."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Header

from services.api.http.errors import ApiError, invalid

_KEY = re.compile(r"[!-~]{1,255}")
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        description="Makes a repeated create safe: 1–255 visible ASCII characters.",
        json_schema_extra={"pattern": f"^{_KEY.pattern}$"},  # documentation only: `checked_key` raises our error
    ),
]


def checked_key(key: str | None) -> str | None:
    """Return the key.

    Raises:
        ApiError: 422, it is malformed.
    """
    if key is not None and not _KEY.fullmatch(key):
        raise invalid("An Idempotency-Key has 1 to 255 visible ASCII characters: send a random UUID.", "Idempotency-Key")
    return key


def key_reused() -> ApiError:
    """Return 409: the key was used with another request."""
    return ApiError(
        409, "idempotency_key_reused", "This Idempotency-Key was used with another request: send a new key with a new request."
    )


class KeyLocks:
    """A lock for each key, so that two concurrent requests create one object."""

    def __init__(self) -> None:
        self._locks: dict[str, asyncio.Lock] = {}
        self._users: dict[str, int] = {}

    @asynccontextmanager
    async def hold(self, key: str | None) -> AsyncIterator[None]:
        """Hold the key's lock; without a key, none."""
        if key is None:
            yield
            return
        lock = self._locks.setdefault(key, asyncio.Lock())
        self._users[key] = self._users.get(key, 0) + 1
        try:
            async with lock:
                yield
        finally:
            self._users[key] -= 1
            if not self._users[key]:
                del self._users[key], self._locks[key]
