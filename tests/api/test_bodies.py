"""What every call holds to, whatever it does: who sends is known before a body is read, and bodies end."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from registry import JobStore
from services.api.app import create_app
from services.api.backends import Backends
from services.api.keys import KeyFile, make_key
from services.settings import Settings
from tav.errors import InvalidConfig
from tav_client.schemas import ModelVersion, Video
from tests.api.conftest import Gateway
from tests.api.fakes import FakeSampler, FakeScheduler
from tests.eventually import eventually

CHANGING = {"POST", "PUT", "PATCH", "DELETE"}
ENDLESS = {"Content-Type": "application/json", "Transfer-Encoding": "chunked"}


def calls(gateway: Gateway) -> dict[tuple[str, str], bool]:
    """Return every described call, one of MLflow and one that does not exist, each with whether it takes a body."""
    described = gateway.http.get("/openapi.json").json()["paths"]
    found = {
        (method.upper(), re.sub(r"\{[a-z_]*\}", "1", path)): "requestBody" in operation
        for path, methods in described.items()
        for method, operation in methods.items()
    }
    assert sum(found.values()) >= 6
    return found | {("POST", "/mlflow/ajax-api/2.0/mlflow/runs/search"): False, ("POST", "/v1/nowhere"): False}


def open_request(gateway: Gateway, method: str, path: str, body: bytes = b"", **headers: str) -> socket.socket:
    """Send the beginning of a request, and no more."""
    url = gateway.http.base_url
    connection = socket.create_connection((url.host, url.port or 80), timeout=20)
    named = {"Host": f"{url.host}:{url.port}", **{name.replace("_", "-"): value for name, value in headers.items()}}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in named.items())]
    connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)
    return connection


def read_response(connection: socket.socket) -> tuple[int, str]:
    """Return the status and the text of a response, up to the end of the connection, which must come."""
    text = b""
    with connection:
        while data := connection.recv(1 << 16):
            text += data
    return int(text.split(b" ", 2)[1]), text.decode()


@pytest.fixture
def gateway_with_keys(start_gateway: Callable[..., Gateway], tmp_path: Path) -> Gateway:
    """A gateway that requires keys; the client has none."""
    _, record = make_key("first")
    place = str(tmp_path / "keys.json")
    KeyFile(place, Settings()).write({record.id: record})
    return start_gateway(api_keys_file=place)


def test_no_call_waits_for_the_body_of_whom_it_does_not_know(gateway_with_keys: Gateway) -> None:
    for method, path in calls(gateway_with_keys):
        status, text = read_response(open_request(gateway_with_keys, method, path, b"1\r\n{\r\n", **ENDLESS))
        if path.startswith(("/v1/", "/mlflow")) and "nowhere" not in path:
            assert status == 401, (method, path, text)
        else:
            assert status in (200, 404, 503), (method, path, text)


def test_no_call_reads_a_body_that_announces_to_be_too_large(gateway: Gateway) -> None:
    for (method, path), has_body in calls(gateway).items():
        connection = open_request(gateway, method, path, Content_Type="application/json", Content_Length=str(300 << 20))
        status, text = read_response(connection)
        assert status == 422 and "bytes at most" in text if has_body else status != 500, (method, path, text)


def test_a_body_that_announces_nothing_is_read_up_to_the_limit(gateway: Gateway) -> None:
    for (method, path), has_body in calls(gateway).items():
        if not has_body:
            continue
        pieces = (b" " * (1 << 16) for _ in range(20))
        answer = gateway.http.request(method, path, content=pieces, headers={"Content-Type": "application/json"})
        assert answer.status_code == 422 and "bytes at most" in answer.json()["detail"], (method, path, answer.text)


@pytest.mark.parametrize(
    ("kind", "body", "status", "code"),
    [
        ("text/plain", b"{}", 415, "unsupported_media_type"),
        ("", b"{}", 415, "unsupported_media_type"),
        ("application/x-www-form-urlencoded", b"a=b", 415, "unsupported_media_type"),
        ("application/json", b'{"caption": "\xff\xfe"}', 422, "invalid_request"),
        ("application/json; charset=utf-16", '{"a": 1}'.encode("utf-16"), 422, "invalid_request"),
        ("application/json", b"", 422, "invalid_request"),
    ],
)
def test_every_call_says_alike_what_is_wrong_with_a_body(
    gateway: Gateway, kind: str, body: bytes, status: int, code: str
) -> None:
    for (method, path), has_body in calls(gateway).items():
        if has_body:
            answer = gateway.http.request(method, path, content=body, headers={"Content-Type": kind} if kind else {})
            assert (answer.status_code, answer.json()["code"]) == (status, code), (method, path, answer.text)


def test_a_body_that_does_not_come_is_given_up_and_the_connection_ended(start_gateway: Callable[..., Gateway]) -> None:
    gateway = start_gateway(request_seconds=0.5)
    with ExitStack() as stack:
        waiting = [
            (path, stack.enter_context(open_request(gateway, method, path, b"1\r\n{\r\n", **ENDLESS)))
            for (method, path), has_body in calls(gateway).items()
            if has_body
        ]
        for path, connection in waiting:
            status, text = read_response(connection)
            assert status == 408 and '"code": "request_timeout"' in text and "connection: close" in text, (path, text)


CROSS_SITE = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1:1"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "cross-site", "Origin": "http://127.0.0.1"},
]


@pytest.mark.parametrize("headers", CROSS_SITE, ids=str)
def test_a_page_of_another_site_changes_nothing(
    gateway: Gateway, gateway_with_keys: Gateway, version: ModelVersion, headers: dict[str, str]
) -> None:
    form = {"model": f"{version.name}/1", "prompt": "a blue ball"}
    for path in ("/v1/videos", "/v1/videos/sync"):  # what a form of HTML can send
        assert (
            gateway.http.post(path, files={name: (None, text) for name, text in form.items()}, headers=headers).status_code
            == 403
        )
    assert gateway.backends.videos.list(model=version.name).data == []
    for method, path in calls(gateway):
        answer, with_keys = (
            gateway.http.request(method, path, headers=headers),
            gateway_with_keys.http.request(method, path, headers=headers),
        )
        if method in CHANGING:
            assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), (method, path, answer.text)
            assert answer.headers["x-request-id"] and with_keys.status_code == 403
        else:
            assert answer.status_code != 403, (method, path, answer.text)


def test_the_services_own_pages_programs_and_allowed_origins_may(start_gateway: Callable[..., Gateway]) -> None:
    gateway = start_gateway(cors_origins=["https://app.example.org"])
    own = str(gateway.http.base_url).rstrip("/")
    for headers in (
        {},
        {"Origin": own},
        {"Origin": own, "Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "https://app.example.org", "Sec-Fetch-Site": "cross-site"},
    ):
        for method, path in calls(gateway):
            if path.startswith("/v1/"):
                assert gateway.http.request(method, path, headers=headers).status_code != 403, (method, path, headers)
    theirs = {"Origin": "https://app.example.org"}
    assert gateway.http.post("/mlflow/ajax-api/2.0/mlflow/runs/search", headers=theirs).status_code == 403


@pytest.mark.parametrize("origin", ["*", "app.example.org", "https://app.example.org/", "https://App.example.org", "null"])
def test_an_allowed_origin_is_written_as_browsers_send_it(origin: str) -> None:
    with pytest.raises(InvalidConfig, match=r"TAV_CORS_ORIGINS.*write it as browsers send it"):
        Settings(cors_origins=[origin])


def test_a_caller_of_sync_that_is_gone_before_its_video_exists_ends_it_all_the_same(
    registry_settings: Settings, version: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray Serve cancels the call of a client that goes away, wherever it is."""
    sampler = FakeSampler()
    sampler.gate.clear()
    backends = Backends.create(registry_settings, FakeScheduler(JobStore(registry_settings)), sampler)
    create, begun, go_on = backends.videos.create, threading.Event(), threading.Event()

    def slow(*args: Any, **named: Any) -> Any:
        begun.set()
        assert go_on.wait(20)
        return create(*args, **named)

    monkeypatch.setattr(backends.videos, "create", slow)

    def ended() -> list[Video]:
        return [video for video in backends.videos.list(model=version.name).data if video.status.final]

    async def scenario() -> None:
        transport = httpx.ASGITransport(create_app(backends))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            body = {"model": f"{version.name}/1", "prompt": "a blue ball"}
            calling = asyncio.create_task(http.post("/v1/videos/sync", json=body))
            await asyncio.to_thread(begun.wait, 20)
            calling.cancel()
            await asyncio.wait({calling})
            go_on.set()
            (video,) = await asyncio.to_thread(eventually, ended)
        assert video.error is not None and video.error.code == "cancelled"

    asyncio.run(scenario())
