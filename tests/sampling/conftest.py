"""Gateway and samplers on real Ray Serve, with tiny random bases and versions that `tav.tune` made.

A test module says with `SETTINGS` how its application differs, and with `PINNED` the alias whose version it pins.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from ray import serve
from ray.serve.schema import ReplicaState

import tav
from registry.jobs import JobStore
from registry.objects import ObjectStore
from registry.registration import VersionInfo
from registry.versions import VersionStore
from services.api.app import build
from services.platform import Stack
from services.platform.ports import any_free
from services.sampling.client import ServeSampler
from services.sampling.deployment import deployment_name
from services.sampling.messages import Reply, SampledVideo, Step
from services.settings import Settings
from tav_client.schemas import ClipInfo, Failure, ModelVersion, TuningJobCreate, VideoCreate
from tests.eventually import eventually
from tests.sampling.gate import Gate
from tests.tav.conftest import write_random_base

APPLICATION = "sampling-test"
STEPS = {"num_inference_steps": 3, "guidance_scale": 2.0}
ENDLESS = {"num_inference_steps": 1000, "use_inverted_latents": False, "num_frames": 200}
"""Would take many minutes: what must happen before it ends is waited for a minute at most."""

Item = dict[str, Any]


@dataclass
class Result:
    """What a tuner leaves: the base it used, and the files of a version."""

    base: tav.Base
    folder: Path

    def sample(self, prompt: str) -> tav.Video:
        """Sample with the library alone, on as many threads as the samplers have."""
        torch.set_num_threads(1)
        delta = tav.Delta.load(self.folder / "delta.safetensors")
        latents = tav.Latents.load(self.folder / "latents.safetensors")
        return tav.sample(self.base, prompt, delta=delta, latents=latents, config=self.base.sample_config(**STEPS))


def tuned(folder: Path, seed: int) -> Result:
    """Tune a clip on a base of its own, and invert it."""
    torch.set_num_threads(1)
    base = tav.Base.load(str(write_random_base(folder / "base", seed)))
    frames = np.random.default_rng(0).integers(0, 255, (5, 16, 16, 3), np.uint8)
    clip = tav.Clip(frames, 8.0, "a red square")
    (folder / "version").mkdir()
    delta = tav.tune(base, clip, tav.TuneConfig(steps=2, learning_rate=1e-2))
    delta.save(folder / "version" / "delta.safetensors")
    latents = tav.invert(base, clip, delta, tav.InvertConfig(num_inference_steps=2))
    latents.save(folder / "version" / "latents.safetensors")
    (folder / "version" / "config.json").write_text(json.dumps({"base": base.name}))
    return Result(base, folder / "version")


@pytest.fixture(scope="session")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return tuned(tmp_path_factory.mktemp("one"), seed=3)


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return tuned(tmp_path_factory.mktemp("other"), seed=4)


@pytest.fixture(scope="module")
def gate(cluster: Stack) -> Iterator[Gate]:
    """Stand between the samplers and S3."""
    with Gate(cluster.settings().s3_endpoint_url or "") as proxy:
        yield proxy


@pytest.fixture(scope="module")
def settings(
    cluster: Stack,
    gate: Gate,
    result: Result,
    other: Result,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> Settings:
    changes = {
        "base": result.base.name,
        "bases": [other.base.name],
        "device": "cpu",
        "compute_threads": 1,
        "sampler_cpus": 0.5,
        "work_dir": tmp_path_factory.mktemp("serve-work"),
        "experiment": f"serve-{uuid.uuid4().hex[:8]}",
        "s3_endpoint_url": gate.url,
    }
    return cluster.settings().model_copy(update=changes | getattr(request.module, "SETTINGS", {}))


@pytest.fixture(scope="module")
def register(settings: Settings, result: Result, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., ModelVersion]:
    """Register a new version, of a model of its own unless named."""

    def make(model: str = "", of: Result = result, fingerprint: str = "", base: str = "") -> ModelVersion:
        folder = tmp_path_factory.mktemp("version")
        (folder / "source.mp4").write_bytes(uuid.uuid4().bytes)
        stored = ObjectStore(settings).put_clip(folder / "source.mp4")
        clip = ClipInfo(uri=stored.uri, sha256=stored.sha256, width=16, height=16, num_frames=5, fps=8.0)
        request = TuningJobCreate(caption="a red square")
        job = JobStore(settings).create(request, clip, of.base.name, model or f"square-{uuid.uuid4().hex[:8]}")
        shutil.copytree(of.folder, folder / "files")
        info = VersionInfo(
            base=base or of.base.name,
            base_fingerprint=fingerprint or of.base.fingerprint,
            caption=request.caption,
            num_frames=5,
            size=(16, 16),
        )
        return VersionStore(settings).register(job, folder / "files", info)

    return make


@pytest.fixture(scope="module")
def pinned(settings: Settings, register: Callable[..., ModelVersion]) -> ModelVersion:
    """Register `pinned-…@production`, loaded by every sampler that starts."""
    version = register(f"pinned-{uuid.uuid4().hex[:8]}")
    return VersionStore(settings).set_alias(version.name, "production", version.version)


@pytest.fixture(scope="module")
def url(settings: Settings, pinned: ModelVersion) -> Iterator[str]:
    port = any_free("127.0.0.1")
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    with_pin = settings.model_copy(update={"sampler_pinned": [f"{pinned.name}@production"]})
    serve.run(build(with_pin), name=APPLICATION, route_prefix="/")
    yield f"http://127.0.0.1:{port}"
    serve.shutdown()


@pytest.fixture(scope="module")
def http(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=120, trust_env=False) as client:
        yield client


@pytest.fixture
def sampler(url: str, settings: Settings) -> ServeSampler:
    """Ask the samplers as the gateway does."""
    names = {base: deployment_name(base) for base in settings.served_bases}
    return ServeSampler({base: serve.get_deployment_handle(name, APPLICATION) for base, name in names.items()})


class Drawing:
    """A sampling under way. Its replies come as they are asked for."""

    def __init__(self, sampler: ServeSampler, version: ModelVersion, **fields: Any) -> None:
        request = VideoCreate.model_validate({"model": version.name, "prompt": "a blue square", **STEPS, **fields})
        self._stream = sampler.sample(request, version)
        self.replies: list[Reply] = []

    async def to_step(self, step: int) -> None:
        """Read the replies until so many steps are done."""
        async with asyncio.timeout(60):
            async for reply in self._stream:
                self.replies.append(reply)
                if isinstance(reply, Step) and reply.step >= step:
                    return
        raise AssertionError(f"it ended before step {step}: {self.replies}")

    async def video(self) -> SampledVideo:
        """Read the replies to their end; return the video."""
        last = await self._last()
        assert isinstance(last, SampledVideo), last
        return last

    async def failure(self) -> Failure:
        """Read the replies to their end; return why there is no video."""
        last = await self._last()
        assert isinstance(last, Failure), last
        return last

    async def _last(self) -> Reply:
        async with asyncio.timeout(60):
            async for reply in self._stream:
                self.replies.append(reply)
        return self.replies[-1]

    async def leave(self) -> None:
        """Disconnect."""
        await self._stream.aclose()


def until(http: httpx.Client, video_id: str, done: Callable[[Item], bool], seconds: float = 60) -> Item:
    """Wait until `done`; return the video."""
    video: Item = {}

    def met() -> bool:
        nonlocal video
        with contextlib.suppress(httpx.TransportError, KeyError):  # the gateway may be starting
            video = http.get(f"/v1/videos/{video_id}").json()
            return done(video)
        return False

    eventually(met, lambda: f"the video stays {video}", seconds)
    return video


def running(base: str) -> int:
    """Return how many samplers of a base Serve counts as running."""
    states = serve.status().applications[APPLICATION].deployments[deployment_name(base)].replica_states
    return states.get(ReplicaState.RUNNING, 0)
