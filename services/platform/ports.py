"""Ports: choose a free one, or report who uses it."""

from __future__ import annotations

import contextlib
import secrets
import socket
from collections.abc import Collection
from pathlib import Path

import psutil

from services.platform.errors import PortInUse


def is_free(port: int, host: str) -> bool:
    """Return whether a server could listen there now."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def any_free(host: str) -> int:
    """Return a port that is free now, and that the system gives to no outgoing connection before it is used.

    Servers take seconds to start. A port of the system's ephemeral range may be a client's by then.
    """
    lowest, highest = 10_000, _first_ephemeral()
    if highest < lowest + 1000:  # the system leaves no room below
        highest = 61_000
    for _ in range(100):
        port = lowest + secrets.randbelow(highest - lowest)
        if is_free(port, host):
            return port
    raise PortInUse(f"No port between {lowest} and {highest} is free on {host}: end what listens there, or name ports.")


def _first_ephemeral() -> int:
    try:
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except OSError:  # not Linux: the range of RFC 6335
        return 49_152


def answers(port: int, host: str) -> bool:
    """Return whether a server accepts connections there."""
    try:
        with socket.create_connection((host, port), timeout=1):
            return True
    except OSError:
        return False


def choose(configured: int, last: int | None, host: str, title: str, flag: str, others: Collection[int] = ()) -> int:
    """Choose the port of a part.

    Args:
        configured: 0 for any.
        last: the one of an earlier start, which is chosen again if any will do.
        host: the address that the part will listen on.
        title: the part's name in an error.
        flag: the option that names another port.
        others: ports of other parts, which are not chosen if any will do.

    Raises:
        PortInUse: another program listens on the configured port.
    """
    if configured == 0:
        if last and last not in others and is_free(last, host):
            return last
        while (port := any_free(host)) in others:
            pass
        return port
    if not is_free(configured, host):
        variable = "TAV_" + flag.removeprefix("--").replace("-", "_").upper()
        raise PortInUse(
            f"Port {configured} on {host}, where {title} should listen, is in use{_holder(configured)}. "
            f"Stop that, or choose another port with {flag} or {variable} (0 takes any free one)."
        )
    return configured


def _holder(port: int) -> str:
    """Return ` by PROGRAM (pid PID)`, or nothing where the operating system does not say."""
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (port,) and connection.pid:
                return f" by {psutil.Process(connection.pid).name()} (pid {connection.pid})"
    return ""
