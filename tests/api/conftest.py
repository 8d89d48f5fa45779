"""A gateway over real storage on a free port with a fake scheduler and sampler; a clip; a registered version."""

from __future__ import annotations

import json
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn

from registry import JobStore, ObjectStore, VersionInfo, VersionStore
from services.api.app import create_app
from services.api.backends import Backends
from services.settings import Settings
from tav.video import encode
from tav_client.schemas import ClipInfo, ModelVersion, TuningJobCreate
from tests.api.fakes import FakeSampler, FakeScheduler


@dataclass
class Gateway:
    """A running gateway, a client of it, and its backends."""

    http: httpx.Client
    backends: Backends
    scheduler: FakeScheduler
    sampler: FakeSampler

    def submit(self, clip: bytes | None, job: dict[str, Any] | str, **headers: str) -> httpx.Response:
        """Send `POST /v1/tuning-jobs` as multipart."""
        text = job if isinstance(job, str) else json.dumps(job)
        files: dict[str, Any] = {"job": (None, text, "application/json")}
        if clip is not None:
            files["clip"] = ("clip.mp4", clip, "video/mp4")
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.http.post("/v1/tuning-jobs", files=files, headers=named)

    def contents(self) -> tuple[int, set[str], list[Path]]:
        """Return the number of jobs, the objects and the scratch files: a refused request must not add to them."""
        objects = {item.uri for item in self.backends.objects.list("")}
        jobs = len(self.backends.jobs.list(limit=10_000).data)
        return jobs, objects, list(self.backends.settings.work_dir.glob("*"))


@pytest.fixture
def start_gateway(registry_settings: Settings, tmp_path: Path) -> Iterator[Callable[..., Gateway]]:
    """Start gateways with changed settings."""
    running: list[tuple[uvicorn.Server, threading.Thread, socket.socket, httpx.Client]] = []

    def start(**changes: Any) -> Gateway:
        settings = registry_settings.model_copy(update={"work_dir": tmp_path / "work", **changes})
        scheduler, sampler = FakeScheduler(JobStore(settings)), FakeSampler()
        backends = Backends.create(settings, scheduler, sampler)
        listening = socket.socket()
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        server = uvicorn.Server(uvicorn.Config(create_app(backends), log_level="error", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        http = httpx.Client(base_url=f"http://127.0.0.1:{listening.getsockname()[1]}", timeout=30, trust_env=False)
        running.append((server, thread, listening, http))
        return Gateway(http, backends, scheduler, sampler)

    yield start
    for server, thread, listening, http in running:
        http.close()
        server.should_exit = True
        thread.join()
        listening.close()


@pytest.fixture
def gateway(start_gateway: Callable[..., Gateway]) -> Gateway:
    """A gateway with the default settings."""
    return start_gateway()


def moving_square(num_frames: int = 12, seed: int = 0) -> bytes:
    """Return an mp4 of 64x64 pixels; each seed gives other content."""
    frames = np.random.default_rng(seed).integers(0, 60, (num_frames, 64, 64, 3), np.uint8)
    for i, frame in enumerate(frames):
        frame[20:40, i : i + 20] = (220, 40, 40)
    return encode(frames, 8.0)


@pytest.fixture(scope="session")
def mp4() -> bytes:
    """A clip of 12 frames."""
    return moving_square()


@pytest.fixture
def version(registry_settings: Settings, tmp_path: Path) -> ModelVersion:
    """A registered version of a new model; its files are no tensors."""
    settings = registry_settings
    source = tmp_path / "source.mp4"
    source.write_bytes(uuid.uuid4().bytes)
    stored = ObjectStore(settings).put_clip(source)
    clip = ClipInfo(uri=stored.uri, sha256=stored.sha256, width=64, height=64, num_frames=12, fps=8.0)
    request = TuningJobCreate(caption="a red ball is moving")
    job = JobStore(settings).create(request, clip, "offline", f"ball-{uuid.uuid4().hex[:12]}")
    folder = tmp_path / "version"
    folder.mkdir()
    for name in ("delta.safetensors", "latents.safetensors", "config.json"):
        (folder / name).write_bytes(b"{}")
    info = VersionInfo(base="offline", base_fingerprint="f" * 64, caption=request.caption, num_frames=8, size=(64, 64))
    registered = VersionStore(settings).register(job, folder, info)
    JobStore(settings).start(job.id, 1)
    JobStore(settings).succeed(job.id, registered.version)
    return registered
