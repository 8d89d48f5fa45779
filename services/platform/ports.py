"""Choosing ports, and saying who has one that is taken."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Collection

import psutil

from services.platform.errors import PortInUse


def is_free(port: int, host: str) -> bool:
    """True when a server could listen there now."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def any_free(host: str) -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
    return port


def answers(port: int, host: str) -> bool:
    """True when somebody accepts connections there."""
    try:
        with socket.create_connection((host, port), timeout=1):
            return True
    except OSError:
        return False


def choose(wanted: int, remembered: int | None, host: str, title: str, flag: str, others: Collection[int] = ()) -> int:
    """The port a part will use.

    Args:
        wanted: As configured; 0 for any.
        remembered: The last one used where any would do.
        host: The address it will listen on.
        title: The part's name in an error.
        flag: The option that chooses another.
        others: What other parts have been given; where any will do, it is none of those.
    """
    if wanted == 0:
        if remembered and remembered not in others and is_free(remembered, host):
            return remembered
        while (port := any_free(host)) in others:
            pass
        return port
    if not is_free(wanted, host):
        variable = "TAV_" + flag.removeprefix("--").replace("-", "_").upper()
        raise PortInUse(
            f"Port {wanted} on {host}, where {title} should listen, is in use{_holder(wanted)}. "
            f"Stop that, or choose another port with {flag} or {variable} (0 takes any free one)."
        )
    return wanted


def _holder(port: int) -> str:
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (port,) and connection.pid:
                return f" by {psutil.Process(connection.pid).name()} (pid {connection.pid})"
    return ""
