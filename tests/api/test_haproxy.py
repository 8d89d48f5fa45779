"""HAProxy in front of the gateway: what slow clients, and many of one address, can and cannot do."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.api import haproxy
from services.api.haproxy import HAProxy
from services.platform.ports import any_free
from services.settings import Settings
from tav.errors import InvalidConfig
from tests.api.conftest import Gateway

HALF = b"POST /v1/videos HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
SLOW = {
    "no byte": b"",
    "half a header": HALF,
    "half a small body": HALF + b'Content-Length: 100\r\n\r\n{"model": ',
    "half a large body": HALF + b"Content-Length: 1000000\r\n\r\n" + b" " * 50_000,
    "a chunk and no end": HALF + b'Transfer-Encoding: chunked\r\n\r\na\r\n{"model": \r\n',
    "half a body to a path that is not there": HALF.replace(b"/v1/videos", b"/nowhere") + b"Content-Length: 9\r\n\r\n{",
}


class ProxiedGateway:
    """A gateway behind HAProxy."""

    def __init__(self, gateway: Gateway, port: int) -> None:
        self.gateway, self.port = gateway, port

    def connect(self, data: bytes = b"", source: str = "127.0.0.1") -> socket.socket:
        """Connect from `source`, and send `data` and no more."""
        connection = socket.socket()
        connection.settimeout(30)
        connection.bind((source, 0))
        with suppress(ConnectionResetError):  # refused
            connection.connect(("127.0.0.1", self.port))
            connection.sendall(data)
        return connection

    def http(self, source: str = "127.0.0.1", **headers: str) -> httpx.Client:
        """Return a client with the address `source`."""
        transport = httpx.HTTPTransport(local_address=source)
        url, named = f"http://127.0.0.1:{self.port}", {name.replace("_", "-"): value for name, value in headers.items()}
        return httpx.Client(base_url=url, transport=transport, timeout=30, headers=named)


@pytest.fixture
def start(start_gateway: Callable[..., Gateway]) -> Iterator[Callable[..., ProxiedGateway]]:
    """Start gateways behind HAProxy, with changed settings."""
    with ExitStack() as stack:

        def start_one(**changes: Any) -> ProxiedGateway:
            gateway = start_gateway(**changes)
            ports = {"port": any_free("127.0.0.1"), "serve_port": gateway.http.base_url.port}
            stack.callback(HAProxy(gateway.backends.settings.model_copy(update=ports)).stop)
            return ProxiedGateway(gateway, ports["port"] or 0)

        yield start_one


def read_to_end(connection: socket.socket) -> bytes:
    """Return all bytes up to the end of the connection, which must come."""
    text = b""
    with connection, suppress(ConnectionResetError):
        while data := connection.recv(1 << 16):
            text += data
    return text


def test_hundreds_of_slow_clients_of_one_address_stop_nobody_else_and_are_closed(
    start: Callable[..., ProxiedGateway],
) -> None:
    proxied = start(request_seconds=4, connections_per_address=100)
    videos_before = proxied.gateway.backends.videos.list(limit=1).data
    slow = [(name, proxied.connect(data)) for _ in range(100) for name, data in SLOW.items()]
    with proxied.http("127.0.0.2") as other:
        for path in ("/healthz", "/readyz", "/v1/models", "/v1/videos"):
            assert other.get(path).status_code == 200
    responses = [(name, read_to_end(connection)) for name, connection in slow]
    assert {text[:12] for _, text in responses} == {b"HTTP/1.1 408", b"HTTP/1.1 429", b""}  # none: beyond twice the share
    for name, text in responses[: len(SLOW)]:
        assert text.startswith(b"HTTP/1.1 408") and (b'"code": "request_timeout"' in text or "body" not in name), (name, text)
    with proxied.http() as same:
        assert same.get("/v1/models").status_code == 200
    assert proxied.gateway.backends.videos.list(limit=1).data == videos_before


def test_an_address_with_its_share_of_connections_is_told_so(start: Callable[..., ProxiedGateway]) -> None:
    proxied = start(connections_per_address=10)
    with ExitStack() as stack:
        for _ in range(10):
            stack.enter_context(proxied.connect())
        with proxied.http() as http, proxied.http("127.0.0.2") as other:
            refused = http.get("/v1/models")
            assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
            assert refused.headers["retry-after"] and refused.headers["x-request-id"]
            assert other.get("/v1/models").status_code == 200


def test_behind_a_trusted_proxy_its_clients_are_counted_each(start: Callable[..., ProxiedGateway], mp4: bytes) -> None:
    proxied = start(connections_per_address=2, trusted_proxies=["127.0.0.3/32"])
    job = open_job(proxied, mp4)
    with ExitStack() as stack:

        def follow(client: str, source: str = "127.0.0.3") -> int:
            http = stack.enter_context(proxied.http(source, X_Forwarded_For=client))
            return stack.enter_context(http.stream("GET", f"/v1/tuning-jobs/{job}/events")).status_code

        assert [follow("192.0.2.1") for _ in range(3)] == [200, 200, 429]
        assert follow("192.0.2.1, 192.0.2.2") == 200  # what the proxy itself has added counts
        assert follow("192.0.2.9, 192.0.2.1") == 429
        assert [follow(f"192.0.2.{n}", "127.0.0.4") for n in range(50, 53)] == [200, 200, 429]  # others are not believed


def test_followers_and_what_waits_leave_health_and_each_other_their_slots(
    start: Callable[..., ProxiedGateway], mp4: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(haproxy.SLOTS, "followers", 3)
    proxied = start()
    job = open_job(proxied, mp4)
    with ExitStack() as stack:

        def follow(path: str) -> int:
            return stack.enter_context(stack.enter_context(proxied.http()).stream("GET", path)).status_code

        events, logs = f"/v1/tuning-jobs/{job}/events", f"/v1/tuning-jobs/{job}/logs?follow=true"
        assert [follow(events), follow(logs), follow(events), follow(events)] == [200, 200, 200, 503]
        with proxied.http() as http:
            assert http.get("/healthz").status_code == http.get("/v1/tuning-jobs").status_code == 200
    monkeypatch.setitem(haproxy.SLOTS, "others", 3)
    proxied = start(request_seconds=20)
    large = HALF + b"Content-Length: 1000000\r\n\r\n" + b" " * 50_000  # more than HAProxy waits for
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(proxied.connect(large))
        with proxied.http() as http:
            refused = http.get("/v1/tuning-jobs")
            assert (refused.status_code, refused.json()["code"]) == (503, "not_ready") and refused.headers["retry-after"]
            assert http.get("/healthz").status_code == 200
            with http.stream("GET", f"/v1/tuning-jobs/{job}/events") as answer:
                assert answer.status_code == 200


def open_job(proxied: ProxiedGateway, clip: bytes) -> str:
    response = proxied.gateway.submit(clip, {"caption": "a square", "params": {"num_frames": 8}})
    assert response.status_code == 201, response.text
    return str(response.json()["id"])


@pytest.mark.parametrize("sent_id", ["mine-1.2_3", "two words", "x" * 129, "a,b", None])
def test_an_answer_has_one_request_id_and_it_is_the_logs(
    start: Callable[..., ProxiedGateway],
    sent_id: str | None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    proxied = start()

    def broken(*_: Any) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(proxied.gateway.backends.versions, "get_model", broken)
    with proxied.http(**({} if sent_id is None else {"x_request_id": sent_id})) as http:
        (named,) = http.get("/v1/models/ball").headers.get_list("x-request-id")
        (refused,) = http.get("/-/routes").headers.get_list("x-request-id")
    assert named in caplog.text
    assert [named, refused].count(sent_id) == (2 if sent_id == "mine-1.2_3" else 0) and named and refused


@pytest.mark.parametrize(
    "data", [b"GET /\xc3\xa4 HTTP/1.1\r\n\r\n", b"hello\r\n\r\n", b"GET / HTTP/1.1\r\nCookie: " + b"x" * 20_000 + b"\r\n\r\n"]
)
def test_what_is_no_http_is_refused_and_does_not_reach_the_gateway(start: Callable[..., ProxiedGateway], data: bytes) -> None:
    assert read_to_end(start().connect(data)).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("path", ["/-/routes", "/%2D/routes", "/-/", "/%2d%2Froutes"])
def test_serves_inner_paths_are_closed(start: Callable[..., ProxiedGateway], path: str) -> None:
    with start().http() as http:
        answer = http.get(path)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found") and answer.headers.get("server") is None


def test_an_answer_that_comes_early_is_heard_by_whoever_still_sends(start: Callable[..., ProxiedGateway]) -> None:
    proxied = start()
    pieces = (bytes(1 << 20) for _ in range(64))
    with proxied.http() as http:
        answer = http.post("/v1/uploads", content=pieces, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422 and "bytes at most" in answer.json()["detail"]


def test_a_gateway_that_is_away_is_503_in_the_contracts_words(registry_settings: Settings, tmp_path: Path) -> None:
    places = {"port": any_free("127.0.0.1"), "serve_port": any_free("127.0.0.1"), "work_dir": tmp_path}
    running = HAProxy(registry_settings.model_copy(update=places))
    try:
        answer = httpx.get(f"http://127.0.0.1:{places['port']}/v1/videos")
    finally:
        running.stop()
    assert (answer.status_code, answer.json()["code"]) == (503, "not_ready") and answer.headers["retry-after-ms"]
    assert answer.headers["content-type"] == "application/problem+json"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "::", "0.0.0.0"])
def test_it_listens_where_the_gateway_should(registry_settings: Settings, tmp_path: Path, host: str) -> None:
    port = any_free("127.0.0.1")
    settings = registry_settings.model_copy(update={"host": host, "port": port, "work_dir": tmp_path, "serve_port": 9})
    running = HAProxy(settings)
    try:
        for address in ["127.0.0.1"] * (host != "::1") + ["[::1]"] * (":" in host):
            assert httpx.get(f"http://{address}:{port}/healthz").status_code == 503
    finally:
        running.stop()


def test_a_port_that_is_taken_and_a_certificate_that_is_none_are_said(registry_settings: Settings, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = registry_settings.model_copy(update={"port": taken.getsockname()[1], "work_dir": tmp_path / "work"})
        with pytest.raises(InvalidConfig, match=rf"cannot listen on 127\.0\.0\.1:{settings.port}: .*in use"):
            HAProxy(settings)
    (tmp_path / "no").write_text("no certificate")
    wrong = {"port": any_free("127.0.0.1"), "tls_certfile": tmp_path / "no", "tls_keyfile": tmp_path / "no"}
    with pytest.raises(InvalidConfig, match="certificate"):
        HAProxy(settings.model_copy(update=wrong))
    assert list((tmp_path / "work").iterdir()) == []


@pytest.mark.parametrize("network", ["10.0.0.0/33", "nobody", "10.0.0.1/8"])
def test_a_trusted_proxy_is_an_address_or_a_network(network: str) -> None:
    with pytest.raises(InvalidConfig, match=r"TAV_TRUSTED_PROXIES.*write an address or a network"):
        Settings(trusted_proxies=[network])
