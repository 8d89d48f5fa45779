"""A video's numbered snapshots, in memory, for whoever follows it."""

from __future__ import annotations

import asyncio

from registry.tracking import now_ms
from tav_client.schemas import Video


class Snapshots:
    """What a video was like after each of its steps, newest last.

    Numbers begin at the time of day in milliseconds, so that they also grow over a restart of the gateway: whoever followed
    the former one's numbers gets everything of the new one's.
    """

    def __init__(self, video: Video) -> None:
        self._next = now_ms()
        self._kept: list[tuple[int, Video]] = []
        self._news = asyncio.Event()
        self.closed = False
        """Nothing comes any more: the video has ended, or the gateway does."""
        self.add(video)

    @property
    def newest(self) -> Video:
        """The video as it is now."""
        return self._kept[-1][1]

    def add(self, video: Video) -> None:
        """The video has changed."""
        self._kept.append((self._next, video))
        self._next += 1
        self._wake()

    def change(self, **fields: object) -> None:
        """The video has changed in these fields."""
        self.add(self.newest.model_copy(update=fields))

    def close(self) -> None:
        """Let the followers go."""
        self.closed = True
        self._wake()

    def last(self) -> list[tuple[int, Video]]:
        """The newest snapshot and its number."""
        return self._kept[-1:]

    async def newer(self, number: int, timeout_s: float) -> list[tuple[int, Video]]:
        """Every snapshot after that number; waits for one, and after `timeout_s` there are none."""
        news = self._news
        found = [entry for entry in self._kept if entry[0] > number]
        if found or self.closed:
            return found
        try:
            async with asyncio.timeout(timeout_s):
                await news.wait()
        except TimeoutError:
            return []
        return [entry for entry in self._kept if entry[0] > number]

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()
