"""Pages of other sites change nothing here.

A browser sends a form, or a script's simple request, to any address, this machine's too, and with it the password that it
keeps for that address. It says whose page it was: `Sec-Fetch-Site`, and before browsers had that, `Origin`. Programs send
neither. The rule is that of Go's `http.CrossOriginProtection`.
"""

from __future__ import annotations

from collections.abc import Collection

from fastapi import Request
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from services.api.http.errors import ApiError, answer

_READ_ONLY = {"GET", "HEAD", "OPTIONS"}


class Origins:
    """ASGI middleware.

    Args:
        app: What it wraps.
        trusted: Origins whose pages may use the interface; MLflow they may not, where a browser adds the operator's password.
    """

    def __init__(self, app: ASGIApp, trusted: Collection[str]) -> None:
        self._app = app
        self._trusted = frozenset(trusted)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http" or scope["method"] in _READ_ONLY or self._allowed(scope):
            await self._app(scope, receive, send)
            return
        sender = Headers(scope=scope).get("origin", "another site")
        detail = f"Pages of {sender} may change nothing here: name the origin in TAV_CORS_ORIGINS if they should."
        await answer(Request(scope), ApiError(403, "forbidden", detail))(scope, receive, send)

    def _allowed(self, scope: Scope) -> bool:
        headers = Headers(scope=scope)
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        if origin in self._trusted and not scope["path"].startswith("/mlflow"):
            return True
        if site is not None:
            return site in ("same-origin", "none")  # none: the user's own doing
        return origin is None or origin.partition("://")[2] == headers.get("host")
