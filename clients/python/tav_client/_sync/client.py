"""The client: one connection pool, and what the service keeps as attributes."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from tav_client import _calls, schemas
from tav_client._retry import RetryPolicy
from tav_client._sync.batches import Batches
from tav_client._sync.jobs import Jobs
from tav_client._sync.models import Models
from tav_client._sync.transport import Transport
from tav_client._sync.uploads import Uploads
from tav_client._sync.videos import Videos


class TavClient:
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
        self._transport = Transport(base_url, api_key, timeout, RetryPolicy(max_retries=max_retries), tenant)
        self.jobs = Jobs(self._transport)
        """Tuning jobs."""
        self.models = Models(self._transport)
        """The registry."""
        self.videos = Videos(self._transport)
        """Sampling."""
        self.batches = Batches(self._transport)
        """Jobs under one label."""
        self.uploads = Uploads(self._transport)
        """Large clips, sent to S3 directly."""

    def bases(self) -> schemas.Bases:
        """Return the bases that the service tunes on, with their defaults, its limits, and the values that fields take."""
        return self._transport.send(_calls.list_bases())

    @property
    def base_url(self) -> str:
        """Where the service is."""
        return str(self._transport.url)

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.base_url!r})"
