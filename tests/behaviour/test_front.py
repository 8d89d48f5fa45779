"""The whole service before strangers: slow clients, early hang-ups, and what listens where."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import socket
import ssl
import stat
from collections.abc import Iterator
from typing import Any

import httpx
import psutil
import pytest

from services.platform import processes
from tests.behaviour.conftest import CLIP, Service
from tests.eventually import eventually

pytestmark = pytest.mark.slow

LOOPBACKS = {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
SLOW = [
    b"",
    b"GET /healthz HTTP/1.1\r\nHost: x\r\n",
    b"POST /v1/videos HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n{",
]


@pytest.fixture
def http(service: Service) -> Iterator[httpx.Client]:
    with _client(service) as made:
        yield made


def _client(service: Service, source: str = "127.0.0.1", timeout: float = 300) -> httpx.Client:
    transport = httpx.HTTPTransport(local_address=source, verify=httpx.create_ssl_context())
    key = {"Authorization": f"Bearer {service.key}"}
    return httpx.Client(base_url=service.client.base_url, headers=key, transport=transport, timeout=timeout)


def _processes(service: Service) -> list[psutil.Process]:
    marked = processes.marked(f"{service.stack.root}:")
    found = [*marked, *(child for process in marked for child in process.children(recursive=True))]
    return list({process.pid: process for process in found}.values())


def test_a_thousand_slow_clients_of_one_address_stop_nobody_else_and_are_closed(service: Service, http: httpx.Client) -> None:
    trust = ssl.create_default_context()

    def begin(number: int) -> socket.socket:
        made = socket.socket()
        made.settimeout(90)
        made.bind(("127.0.0.9", 0))
        with contextlib.suppress(OSError):  # beyond its share it is not taken
            made.connect(("127.0.0.1", http.base_url.port or 0))
            if number % 4:  # every fourth does not even begin to speak TLS
                made = trust.wrap_socket(made, server_hostname="localhost")
                made.sendall(SLOW[number % 3])
        return made

    def closed(connection: socket.socket) -> bool:
        try:
            with connection:
                while connection.recv(1 << 16):
                    pass
        except TimeoutError:
            return False
        except OSError:  # reset, or never taken
            pass
        return True

    with concurrent.futures.ThreadPoolExecutor(100) as threads:
        slow = list(threads.map(begin, range(1000)))
        with _client(service, "127.0.0.2", timeout=20) as other:
            for path in ("/healthz", "/readyz", "/v1/models", "/v1/videos"):
                assert other.get(path).status_code == 200
        assert all(threads.map(closed, slow))


def test_a_large_body_without_a_key_fills_no_memory(service: Service, http: httpx.Client) -> None:
    def memory() -> int:
        found = 0
        for process in _processes(service):
            with contextlib.suppress(psutil.Error):
                found += process.memory_info().rss
        return found

    before = memory()
    pieces = (bytes(1 << 20) for _ in range(300))
    answer = httpx.post(f"{http.base_url}/v1/uploads".replace("//v1", "/v1"), content=pieces, verify=httpx.create_ssl_context())
    assert answer.status_code == 401
    assert memory() - before < 100 << 20


def test_whoever_leaves_sync_early_leaves_no_video_to_be_drawn(service: Service, http: httpx.Client) -> None:
    job: dict[str, Any] = {"caption": "a red ball", "model": "left-early", "params": {"steps": 1, "num_frames": 2}}
    files: dict[str, Any] = {"clip": CLIP.open("rb"), "job": (None, json.dumps(job), "application/json")}
    made = http.post("/v1/tuning-jobs", files=files).json()
    assert service.client.jobs.get(made["id"]).wait(timeout=300).status == "succeeded"

    def call(number: int) -> None:
        body = {"model": "left-early", "prompt": f"a blue ball {number}", "num_inference_steps": 40}
        with contextlib.suppress(httpx.TimeoutException), _client(service, timeout=0.2 + number / 10) as own:
            own.post("/v1/videos/sync", json=body)

    with concurrent.futures.ThreadPoolExecutor(10) as threads:
        list(threads.map(call, range(10)))

    def mine() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = http.get("/v1/videos", params={"model": "left-early", "limit": 40}).json()["data"]
        return found

    eventually(lambda: all(video["status"] in ("completed", "failed") for video in mine()), lambda: str(mine()), 200)
    left = mine()
    assert left and {video["error"]["code"] for video in left} == {"cancelled"}


def test_on_one_machine_nothing_listens_to_others(service: Service, http: httpx.Client) -> None:
    listening = {
        (process.name(), connection.laddr)
        for process in _processes(service)
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    assert {name for name, _ in listening} >= {"haproxy", "gcs_server", "raylet", "rclone"}
    others = {(name, address) for name, address in listening if address.ip not in LOOPBACKS}
    # Ray Serve's calls between replicas ask for Ray's token; torch's rendezvous of a tuner's ranks is there while a job runs
    assert {
        (name, address) for name, address in others if not name.startswith(("ray::ServeReplica", "ray::RayTrainWorker"))
    } == set()
    for path in ("/-/routes", "/%2D/routes"):
        assert http.get(path).status_code == 404


def test_rays_folder_is_its_owners_alone(service: Service) -> None:
    assert stat.S_IMODE(service.data.stat().st_mode) == 0o700
    ray = service.stack.ray_folder
    assert stat.S_IMODE(ray.parent.stat().st_mode) == 0o700 and ray.stat().st_uid == os.getuid()


def test_haproxy_that_dies_is_started_again(service: Service, http: httpx.Client) -> None:
    (running,) = [process for process in _processes(service) if process.name() == "haproxy"]
    running.kill()

    def ready() -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return http.get("/readyz", timeout=5).status_code == 200
        return False

    eventually(ready, "the service does not come back")
    (other,) = [process for process in _processes(service) if process.name() == "haproxy"]
    assert other.pid != running.pid
