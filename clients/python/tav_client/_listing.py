"""Lists that are fetched page by page as they are iterated over, and that a notebook shows as a table."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from itertools import islice
from typing import Generic, TypeVar

T = TypeVar("T")

SHOWN = 20
"""Entries that a notebook shows at most."""


class Listing(Iterator[T], Generic[T]):
    """Entries one after another; what a notebook has shown still comes."""

    def __init__(self, entries: Generator[T] | Iterator[T]) -> None:
        self._entries = iter(entries)
        self._ahead: deque[T] = deque()

    def __next__(self) -> T:
        return self._ahead.popleft() if self._ahead else next(self._entries)

    def _repr_html_(self) -> str:
        from tav_client._tables import entries  # only notebooks need it

        self._ahead.extend(islice(self._entries, SHOWN + 1 - len(self._ahead)))
        return entries(list(islice(self._ahead, SHOWN)), more=len(self._ahead) > SHOWN)


class AsyncListing(AsyncIterator[T], Generic[T]):
    """A list for `async for`. A notebook shows the list of what came: `[entry async for entry in …]`."""

    def __init__(self, entries: AsyncGenerator[T] | AsyncIterator[T]) -> None:
        self._entries = aiter(entries)

    async def __anext__(self) -> T:
        return await anext(self._entries)
