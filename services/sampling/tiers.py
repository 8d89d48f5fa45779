"""One tier of the delta cache: the most recently used entries within a budget."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from pydantic import ByteSize, TypeAdapter

T = TypeVar("T")


@dataclass(frozen=True)
class Budget:
    """How much a tier may hold: a number of entries, or bytes."""

    count: int | None = None
    nbytes: int | None = None

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Parse `16` as a number of entries, `8GiB` as bytes."""
        if text.isdigit():
            return cls(count=int(text))
        return cls(nbytes=int(TypeAdapter(ByteSize).validate_python(text)))

    def holds(self, count: int, nbytes: int) -> bool:
        """Return whether so much is within the budget."""
        return (self.count is None or count <= self.count) and (self.nbytes is None or nbytes <= self.nbytes)


@dataclass
class _Entry(Generic[T]):
    value: T
    nbytes: int
    users: int = 0


class Tier(Generic[T]):
    """Entries by name, least recently used first. What is in use or pinned stays, even beyond the budget.

    Args:
        budget: above it the least recently used entries are dropped. A budget of 0 holds an entry while it is in use.
        nbytes: returns the size of a value.
        pinned: returns whether a name is never dropped.
    """

    def __init__(self, budget: Budget, nbytes: Callable[[T], int], pinned: Callable[[str], bool]) -> None:
        self._budget, self._nbytes, self._pinned = budget, nbytes, pinned
        self._entries: OrderedDict[str, _Entry[T]] = OrderedDict()

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def nbytes(self) -> int:
        """Bytes of all entries together."""
        return sum(entry.nbytes for entry in self._entries.values())

    def get(self, name: str) -> T | None:
        """Return the value, which counts as used now; None where there is none."""
        entry = self._entries.get(name)
        if entry is None:
            return None
        self._entries.move_to_end(name)
        return entry.value

    def put(self, name: str, value: T) -> None:
        """Add a value, unless there is one of that name."""
        if name not in self._entries:
            self._entries[name] = _Entry(value, self._nbytes(value))
        self._entries.move_to_end(name)
        self.trim()

    @contextmanager
    def using(self, name: str, value: T) -> Iterator[T]:
        """Hold a value during the block, and afterwards as long as the budget allows."""
        entry = self._entries.setdefault(name, _Entry(value, self._nbytes(value)))
        self._entries.move_to_end(name)
        entry.users += 1
        self.trim()
        try:
            yield entry.value
        finally:
            entry.users -= 1
            self.trim()

    def trim(self) -> None:
        """Drop what is beyond the budget, neither in use nor pinned."""
        count, nbytes = len(self._entries), self.nbytes
        for name, entry in list(self._entries.items()):
            if self._budget.holds(count, nbytes):
                return
            if not entry.users and not self._pinned(name):
                del self._entries[name]
                count, nbytes = count - 1, nbytes - entry.nbytes
