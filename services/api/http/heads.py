"""HEAD where GET is: the same headers, without the body."""

from __future__ import annotations

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

ASKED = "tav.asked_method"
"""In a scope: the method as it was asked for."""


class Heads:
    """ASGI middleware: what it wraps is asked by GET, up to the headers of its answer. MLflow answers its own."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http" or scope["method"] != "HEAD" or scope["path"].startswith("/mlflow"):
            await self._app(scope, receive, send)
            return
        answered = False

        async def send_head(message: Message) -> None:
            nonlocal answered
            if message["type"] == "http.response.start":
                answered = True
                await send(message)
                await send({"type": "http.response.body"})
            elif message.get("more_body"):
                raise ClientDisconnect  # ends streams, such as events, that nobody reads

        try:
            await self._app({**scope, "method": "GET", ASKED: "HEAD"}, receive, send_head)
        except ClientDisconnect:
            if not answered:
                raise
