"""ASGI middleware around every request, outermost first."""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import Collection

from fastapi import Request
from ray.exceptions import TaskCancelledError
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services import logs
from services.api.http.bodies import BodyReceiver
from services.api.http.errors import INTERNAL, ORIGINAL_METHOD, ApiError, problem_response
from services.api.http.openapi import RESPONSE_HEADERS

log = logging.getLogger(__name__)

_REQUEST_ID = "x-request-id"
_VALID_ID = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_READ_ONLY = {"GET", "HEAD", "OPTIONS"}


class RequestMiddleware:
    """Gives a request its id, limits the time of its body, and answers an exception that nothing else has caught.

    Args:
        app: the application that it wraps.
        body_seconds: see `BodyReceiver`.
        behind_serve: whether Ray Serve's proxy is in front, which adds the id to responses itself.
    """

    def __init__(self, app: ASGIApp, body_seconds: float, behind_serve: bool = False) -> None:
        self._app = app
        self._body_seconds = body_seconds
        self._behind_serve = behind_serve

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        header = Headers(scope=scope).get(_REQUEST_ID, "")
        request_id = header if _VALID_ID.fullmatch(header) else uuid.uuid4().hex
        started, body = False, BodyReceiver(receive, self._body_seconds)

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                if not self._behind_serve:
                    headers[_REQUEST_ID] = request_id
                if _has_body(scope) and not body.complete:
                    headers["connection"] = "close"  # nothing is going to read the rest
            await send(message)

        with logs.about(request_id=request_id):
            try:
                await self._app(scope, body, send_with_id)
            except (ClientDisconnect, TaskCancelledError):  # the latter from Serve's proxy
                log.info("%s %s: the client disconnected (request %s)", scope["method"], scope["path"], request_id)
            except Exception:
                log.exception("%s %s failed (request %s)", scope["method"], scope["path"], request_id)
                if started:
                    raise
                response = problem_response(Request(scope), ApiError(500, "internal", INTERNAL))
                await response(scope, receive, send_with_id)


def _has_body(scope: Scope) -> bool:
    headers = Headers(scope=scope)
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"


class HeadMiddleware:
    """Answers HEAD wherever GET is answered, streams included: calls GET and stops after the headers.

    MLflow answers its own.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http" or scope["method"] != "HEAD" or scope["path"].startswith("/mlflow"):
            await self._app(scope, receive, send)
            return
        responded = False

        async def send_head(message: Message) -> None:
            nonlocal responded
            if message["type"] == "http.response.start":
                responded = True
                await send(message)
                await send({"type": "http.response.body"})
            elif message.get("more_body"):
                raise ClientDisconnect  # ends a stream, such as events, that nothing reads

        try:
            await self._app({**scope, "method": "GET", ORIGINAL_METHOD: "HEAD"}, receive, send_head)
        except ClientDisconnect:
            if not responded:
                raise


class CorsMiddleware(CORSMiddleware):
    """Lets pages of the given origins read responses. Other origins get the response as if this middleware were not there."""

    def __init__(self, app: ASGIApp, origins: Collection[str]) -> None:
        super().__init__(
            app,
            allow_origins=tuple(origins),
            allow_methods=("*",),
            allow_headers=("*",),
            expose_headers=tuple(RESPONSE_HEADERS),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        trusted = scope["type"] == "http" and Headers(scope=scope).get("origin") in self.allow_origins
        await (super().__call__ if trusted else self.app)(scope, receive, send)


class CrossOriginMiddleware:
    """Refuses changes that another site's page requests (cross-site request forgery).

    A browser sends a form, or a script's simple request, to any address, this machine's too, and with it the password that it
    keeps for that address. It names the page's site in `Sec-Fetch-Site`, and before browsers had that, in `Origin`. Programs
    send neither. The rule is that of Go's `http.CrossOriginProtection`.

    Args:
        app: the application that it wraps.
        trusted: origins whose pages may use the interface, except MLflow, where a browser adds the operator's password.
    """

    def __init__(self, app: ASGIApp, trusted: Collection[str]) -> None:
        self._app = app
        self._trusted = frozenset(trusted)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http" or scope["method"] in _READ_ONLY or self._allowed(scope):
            await self._app(scope, receive, send)
            return
        sender = Headers(scope=scope).get("origin", "another site")
        detail = f"Pages of {sender} may change nothing here: name the origin in TAV_CORS_ORIGINS if they should."
        await problem_response(Request(scope), ApiError(403, "forbidden", detail))(scope, receive, send)

    def _allowed(self, scope: Scope) -> bool:
        headers = Headers(scope=scope)
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        if origin in self._trusted and not scope["path"].startswith("/mlflow"):
            return True
        if site is not None:
            return site in ("same-origin", "none")  # none: the user's own doing
        return origin is None or origin.partition("://")[2] == headers.get("host")
