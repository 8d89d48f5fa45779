"""A reverse proxy to the MLflow server, whose pages and API stand at /mlflow.

MLflow has no tenants of its own and shows every tenant's runs, so only operators may pass. A browser asks for user and
password and sends them with whatever the page loads; programs send the key as `MLFLOW_TRACKING_TOKEN`. MLflow's pages use
relative addresses, so nothing in them needs changing.
"""

from __future__ import annotations

from urllib.parse import quote

import httpx
from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from starlette.background import BackgroundTask

from registry.settings import run_path
from registry.tracking import Runs
from services.api.http.bodies import limited
from services.api.http.errors import unavailable
from services.settings import Settings

_HOP_BY_HOP = {
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
}
_FOR_GATEWAY = {"host", "authorization", "cookie", "origin", "referer"}
"""Meant for the gateway. MLflow checks hosts and origins itself, and would refuse the gateway's."""
_BODY_LIMIT = 16 << 20
"""MLflow's largest requests are batches of metrics, 1 MB; artifacts do not pass here."""


class MlflowProxy:
    """Forwards requests to the MLflow server, and streams its responses back."""

    def __init__(self, settings: Settings) -> None:
        self._root = settings.mlflow_tracking_uri.rstrip("/")
        self._runs = Runs(settings, "tuning", "job")
        self._http = httpx.AsyncClient(timeout=settings.mlflow_timeout_seconds, trust_env=False)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    def runs_page(self) -> str:
        """Return the path of the page that lists the tuning runs; MLflow's start page does not. Blocks."""
        return f"/mlflow/#{run_path(self._runs.experiment_id)}"

    async def forward(self, request: Request, path: str) -> Response:
        """Return MLflow's response.

        Raises:
            ApiError: 422 the body is too large, 503 MLflow does not answer.
        """
        url = f"{self._root}/{quote(path)}" + (f"?{request.url.query}" if request.url.query else "")
        dropped = _HOP_BY_HOP | _FOR_GATEWAY
        headers = [(name, value) for name, value in request.headers.items() if name not in dropped]
        has_body = {"content-length", "transfer-encoding"} & set(request.headers.keys())
        body = Request(request.scope, limited(request, _BODY_LIMIT)).stream() if has_body else None
        forwarded = self._http.build_request(request.method, url, headers=headers, content=body)
        try:
            response = await self._http.send(forwarded, stream=True)
        except httpx.RequestError as error:
            raise unavailable("storage_unavailable", f"MLflow does not answer ({type(error).__name__}): ask again.") from error
        return StreamingResponse(
            response.aiter_raw(),
            response.status_code,
            {name: value for name, value in response.headers.items() if name not in _HOP_BY_HOP},
            background=BackgroundTask(response.aclose),
        )
