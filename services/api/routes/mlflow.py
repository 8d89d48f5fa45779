"""/mlflow: MLflow's pages and its API behind the gateway's door, for whoever has an operator's key.

MLflow tells nobody from another, and shows every tenant's runs. A browser asks for user and password and sends them along
with whatever the page loads; programs send the key as `MLFLOW_TRACKING_TOKEN`. MLflow's pages name everything relative to
where they are, so nothing in them needs changing.
"""

from __future__ import annotations

from urllib.parse import quote

import httpx
from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import RedirectResponse, StreamingResponse
from starlette.background import BackgroundTask

from registry.settings import run_path
from registry.tracking import Runs
from services.api.auth import Doorkeeper
from services.api.http.bodies import limited
from services.api.http.errors import unavailable
from services.settings import Settings

_HOP = {
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
}
_OURS = {"host", "authorization", "cookie", "origin", "referer"}
"""What the browser says to the gateway, not to MLflow; its own check of hosts and origins would refuse the gateway's."""
_BODY_LIMIT = 16 << 20
"""MLflow's largest requests are batches of metrics, 1 MB; artifacts do not pass here."""
_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]


class MlflowDoor:
    """Passes requests on to the MLflow server, and its answers back, as they come."""

    def __init__(self, settings: Settings) -> None:
        self._root = settings.mlflow_tracking_uri.rstrip("/")
        self._http = httpx.AsyncClient(timeout=settings.mlflow_timeout_seconds, trust_env=False)

    async def close(self) -> None:
        """Let go of the connections."""
        await self._http.aclose()

    async def answer(self, request: Request, path: str) -> Response:
        """MLflow's answer.

        Raises:
            ApiError: 422 the body is too large, 503 MLflow does not answer.
        """
        address = f"{self._root}/{quote(path)}" + (f"?{request.url.query}" if request.url.query else "")
        headers = [(name, value) for name, value in request.headers.items() if name not in _HOP | _OURS]
        sent = {"content-length", "transfer-encoding"} & set(request.headers.keys())
        body = Request(request.scope, limited(request, _BODY_LIMIT)).stream() if sent else None
        asked = self._http.build_request(request.method, address, headers=headers, content=body)
        try:
            answer = await self._http.send(asked, stream=True)
        except httpx.RequestError as error:
            raise unavailable("storage_unavailable", f"MLflow does not answer ({type(error).__name__}): ask again.") from error
        told = {name: value for name, value in answer.headers.items() if name not in _HOP}
        return StreamingResponse(answer.aiter_raw(), answer.status_code, told, background=BackgroundTask(answer.aclose))


def router(door: MlflowDoor, keeper: Doorkeeper, runs: Runs) -> APIRouter:
    """Not a part of the interface that /docs describes."""
    routes = APIRouter(prefix="/mlflow", include_in_schema=False, dependencies=[Depends(keeper.check_operator)])

    @routes.get("")
    def top() -> Response:
        """MLflow's own start page knows of no runs: this leads to them."""
        return RedirectResponse(f"/mlflow/#{run_path(runs.experiment_id)}")

    @routes.api_route("/{path:path}", methods=_METHODS)
    async def page(request: Request, path: str) -> Response:
        return await door.answer(request, path)

    return routes
