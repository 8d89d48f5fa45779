"""Around every request: its id, the time that its body has, and an answer where nothing else has given one."""

from __future__ import annotations

import logging
import re
import uuid

from fastapi import Request
from ray.exceptions import TaskCancelledError
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services import logs
from services.api.http.bodies import Arrival
from services.api.http.errors import INTERNAL, ApiError, answer

log = logging.getLogger(__name__)

HEADER = "x-request-id"
_VALID = re.compile(r"[A-Za-z0-9_.-]{1,128}")


class Requests:
    """ASGI middleware.

    Args:
        app: What it wraps.
        body_seconds: See `Arrival`.
        behind_serve: Ray Serve's proxy puts the id on requests and answers itself.
    """

    def __init__(self, app: ASGIApp, body_seconds: float, behind_serve: bool = False) -> None:
        self._app = app
        self._body_seconds = body_seconds
        self._behind_serve = behind_serve

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(HEADER, "")
        request_id = given if _VALID.fullmatch(given) else uuid.uuid4().hex
        started, arrival = False, Arrival(receive, self._body_seconds)

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                if not self._behind_serve:
                    headers[HEADER] = request_id
                if _has_body(scope) and not arrival.complete:
                    headers["connection"] = "close"  # nobody is going to read the rest
            await send(message)

        with logs.about(request_id=request_id):
            try:
                await self._app(scope, arrival, send_with_id)
            except (ClientDisconnect, TaskCancelledError):  # the latter from Serve's proxy
                log.info("%s %s: the client went away (request %s)", scope["method"], scope["path"], request_id)
            except Exception:
                log.exception("%s %s failed (request %s)", scope["method"], scope["path"], request_id)
                if started:
                    raise
                response = answer(Request(scope), ApiError(500, "internal", INTERNAL))
                await response(scope, receive, send_with_id)


def _has_body(scope: Scope) -> bool:
    headers = Headers(scope=scope)
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"
