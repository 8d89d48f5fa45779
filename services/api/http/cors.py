"""Pages of the origins in `TAV_CORS_ORIGINS` may read what they ask for."""

from __future__ import annotations

from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from services.api.http.openapi import ANSWER_HEADERS


class Cors(CORSMiddleware):
    """ASGI middleware: Starlette's, which does not see other origins: to these everything is as if there were none."""

    def __init__(self, app: ASGIApp, origins: Collection[str]) -> None:
        super().__init__(
            app,
            allow_origins=tuple(origins),
            allow_methods=("*",),
            allow_headers=("*",),
            expose_headers=tuple(ANSWER_HEADERS),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        trusted = scope["type"] == "http" and Headers(scope=scope).get("origin") in self.allow_origins
        await (super().__call__ if trusted else self.app)(scope, receive, send)
