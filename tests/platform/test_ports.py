"""Ports for servers."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from services.platform.ports import any_free

RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


@pytest.mark.skipif(not RANGE.exists(), reason="the system does not say which ports clients get")
def test_a_free_port_is_none_that_a_client_may_get_before_the_server_has_started() -> None:
    first, last = map(int, RANGE.read_text().split())
    if first < 11_000:
        pytest.skip("this system gives clients nearly all ports")
    ports = {any_free("127.0.0.1") for _ in range(50)}
    assert not any(first <= port <= last for port in ports)
    assert len(ports) > 40, "processes that ask at the same time get different ones"


def test_a_port_in_use_is_not_free() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        assert server.getsockname()[1] not in {any_free("127.0.0.1") for _ in range(20)}
