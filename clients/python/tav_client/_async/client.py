"""The client: one connection pool, and what the service keeps as attributes."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from tav_client import _calls, schemas
from tav_client._async.batches import AsyncBatches
from tav_client._async.jobs import AsyncJobs
from tav_client._async.models import AsyncModels
from tav_client._async.transport import AsyncTransport
from tav_client._async.uploads import AsyncUploads
from tav_client._async.videos import AsyncVideos
from tav_client._retry import RetryPolicy


class AsyncTavClient:
    """A tav service; safe to share. Close it when done, or use it as a context manager."""

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        timeout: float = 60.0,
        max_retries: int = 2,
        tenant: str | None = None,
    ) -> None:
        """
        Args:
            base_url: where the service is; left out, `TAV_URL`, then `http://127.0.0.1:8000`.
            api_key: left out, `TAV_API_KEY`, then none.
            timeout: seconds without an answer after which a request counts as lost.
            max_retries: how often a request that may be repeated is repeated.
            tenant: with an operator's key, whose things it is about: a tenant's name, or `*` for all tenants'.
        """
        self._transport = AsyncTransport(base_url, api_key, timeout, RetryPolicy(max_retries=max_retries), tenant)
        self.jobs = AsyncJobs(self._transport)
        """Tuning jobs."""
        self.models = AsyncModels(self._transport)
        """The registry."""
        self.videos = AsyncVideos(self._transport)
        """Sampling."""
        self.batches = AsyncBatches(self._transport)
        """Jobs under one label."""
        self.uploads = AsyncUploads(self._transport)
        """Large clips, sent to S3 directly."""

    async def bases(self) -> schemas.Bases:
        """Return the bases that the service tunes on, with their defaults, its limits, and the values that fields take."""
        return await self._transport.send(_calls.list_bases())

    @property
    def base_url(self) -> str:
        """Where the service is."""
        return str(self._transport.url)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._transport.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.base_url!r})"
