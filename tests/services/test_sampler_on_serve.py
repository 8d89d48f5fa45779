"""Gateway and sampler on real Ray Serve, with a tiny random base and versions that `tav.tune` made."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
import pytest
import ray
import torch
from ray import serve

import tav
from registry.jobs import JobStore
from registry.objects import ObjectStore
from registry.versions import VersionInfo, VersionStore
from registry.videos import VideoStore
from services.api.app import build
from services.platform import Stack
from services.platform.ports import any_free
from services.sampling.client import ServeSampler
from services.settings import Settings
from tav_client.schemas import ClipInfo, ModelVersion, TuningJobCreate, VideoCreate
from tests.tav.conftest import write_random_base

pytestmark = pytest.mark.slow

STEPS = {"num_inference_steps": 3, "guidance_scale": 2.0}


@dataclass
class Result:
    """What a tuner leaves: the base it used, and the files of a version."""

    base: tav.Base
    folder: Path

    def sample(self, prompt: str) -> bytes:
        delta = tav.Delta.load(self.folder / "delta.safetensors")
        latents = tav.Latents.load(self.folder / "latents.safetensors")
        config = self.base.sample_config(**STEPS)
        return tav.sample(self.base, prompt, delta=delta, latents=latents, config=config).encode("mp4")


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    torch.set_num_threads(1)
    base = tav.Base.load(str(write_random_base(tmp_path_factory.mktemp("serve-base"), seed=3)))
    frames = np.random.default_rng(0).integers(0, 255, (5, 16, 16, 3), np.uint8)
    clip = tav.Clip(frames, 8.0, "a red square")
    folder = tmp_path_factory.mktemp("serve-version")
    delta = tav.tune(base, clip, tav.TuneConfig(steps=2, learning_rate=1e-2))
    delta.save(folder / "delta.safetensors")
    tav.invert(base, clip, delta, tav.InvertConfig(num_inference_steps=2)).save(folder / "latents.safetensors")
    (folder / "config.json").write_text(json.dumps({"base": base.name}))
    return Result(base, folder)


@pytest.fixture(scope="module")
def settings(cluster: Stack, result: Result, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    changes = {
        "base": result.base.name,
        "device": "cpu",
        "compute_threads": 1,
        "sampler_cpus": 0.5,
        "work_dir": tmp_path_factory.mktemp("serve-work"),
        "experiment": f"serve-{uuid.uuid4().hex[:8]}",
    }
    return cluster.settings().model_copy(update=changes)


@pytest.fixture(scope="module")
def url(settings: Settings) -> Iterator[str]:
    port = any_free("127.0.0.1")
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(build(settings), name="sampler-test", route_prefix="/")
    yield f"http://127.0.0.1:{port}"
    serve.shutdown()


@pytest.fixture(scope="module")
def http(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=120, trust_env=False) as client:
        yield client


@pytest.fixture
def register(settings: Settings, result: Result, tmp_path: Path) -> Callable[..., ModelVersion]:
    def make(fingerprint: str = "") -> ModelVersion:
        source = tmp_path / f"{uuid.uuid4().hex}.mp4"
        source.write_bytes(uuid.uuid4().bytes)
        stored = ObjectStore(settings).put_clip(source)
        clip = ClipInfo(uri=stored.uri, sha256=stored.sha256, width=16, height=16, num_frames=5, fps=8.0)
        request = TuningJobCreate(caption="a red square")
        job = JobStore(settings).create(request, clip, result.base.name, f"square-{uuid.uuid4().hex[:8]}")
        folder = tmp_path / job.id
        shutil.copytree(result.folder, folder)
        info = VersionInfo(
            base=result.base.name,
            base_fingerprint=fingerprint or result.base.fingerprint,
            caption=request.caption,
            num_frames=5,
            size=(16, 16),
        )
        return VersionStore(settings).register(job, folder, info)

    return make


async def draw(version: ModelVersion, stop_after: int | None = None, **fields: Any) -> list[dict[str, Any]]:
    """The sampler's items, or the first of them."""
    sampler = ServeSampler(serve.get_deployment_handle("Sampler", "sampler-test"))
    request = VideoCreate.model_validate({"model": version.name, "prompt": "a blue square", **STEPS, **fields})
    items = []
    stream = sampler.sample(request, version)
    async for item in stream:
        items.append(item)
        if len(items) == stop_after:
            break
    await stream.aclose()
    return items


def frames_of(data: bytes) -> int:
    with av.open(io.BytesIO(data)) as video:
        assert video.streams.video[0].codec_context.name == "h264"
        return sum(1 for _ in video.decode(video=0))


def until(http: httpx.Client, video_id: str, done: Callable[[dict[str, Any]], bool], seconds: float = 60) -> dict[str, Any]:
    deadline = time.monotonic() + seconds
    video: dict[str, Any] = {}
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError, KeyError):  # the gateway may be starting
            video = http.get(f"/v1/videos/{video_id}").json()
            if done(video):
                return video
        time.sleep(0.2)
    raise AssertionError(f"the video stays {video}")


def kill(deployment: str) -> None:
    names = [entry["name"] for entry in ray.util.list_named_actors(all_namespaces=True) if f"#{deployment}#" in entry["name"]]
    assert len(names) == 1
    ray.kill(ray.get_actor(names[0], namespace="serve"))


def test_every_step_is_reported_and_the_video_is_the_one_of_the_library(
    url: str, register: Callable[..., ModelVersion], result: Result
) -> None:
    *steps, last = asyncio.run(draw(register()))
    assert steps == [{"step": i, "total": 3} for i in (1, 2, 3)]
    assert frames_of(last["video"]) == 5
    assert last["video"] == result.sample("a blue square")
    assert (last["content_type"], tuple(last["size"]), last["seconds"]) == ("video/mp4", (16, 16), 5 / 8)
    assert last["latency_s"] >= last["metrics"]["sampling_seconds"] > 0


def test_a_version_that_cannot_be_used_gives_its_reason_and_the_replica_goes_on(
    url: str, settings: Settings, register: Callable[..., ModelVersion]
) -> None:
    objects = ObjectStore(settings)
    good, changed, gone, other = register(), register(), register(), register("f" * 64)
    objects.put_bytes(b"something else", changed.files["delta.safetensors"].uri)
    objects.delete(gone.files["latents.safetensors"].uri)

    async def all_at_once() -> list[list[dict[str, Any]]]:
        return await asyncio.gather(*(draw(version) for version in (changed, changed, gone, other, good)))

    *failed, drawn = asyncio.run(all_at_once())
    codes = [items[-1]["error"]["code"] for items in failed]
    assert codes == ["corrupt_version", "corrupt_version", "corrupt_version", "base_mismatch"]
    assert all(items[-1]["error"]["message"] for items in failed)
    assert frames_of(drawn[-1]["video"]) == 5
    wrong = asyncio.run(draw(good, num_frames=3))
    assert wrong[-1]["error"]["code"] == "invalid_config"


def test_sampling_stops_when_the_caller_goes_away(url: str, register: Callable[..., ModelVersion]) -> None:
    version = register()
    began = time.perf_counter()
    asyncio.run(draw(version, num_inference_steps=40))
    forty = time.perf_counter() - began
    asyncio.run(draw(version, stop_after=2, num_inference_steps=1000))
    began = time.perf_counter()
    asyncio.run(draw(version))  # waits for the replica, which draws one video at a time
    assert time.perf_counter() - began < max(5.0, 5 * forty)


def test_over_http_a_video_is_drawn_and_a_caller_that_hangs_up_ends_it(
    http: httpx.Client, settings: Settings, register: Callable[..., ModelVersion]
) -> None:
    version = register()
    body = {"model": version.name, "prompt": "a blue square", **STEPS}
    answer = http.post("/v1/videos/sync", json=body, headers={"x-request-id": "mine"})
    assert answer.status_code == 200, answer.text
    assert frames_of(answer.content) == 5
    assert answer.headers.get_list("x-request-id") == ["mine"]
    assert len(http.get("/healthz").headers.get_list("x-request-id")) == 1
    with pytest.raises(httpx.ReadTimeout):
        http.post("/v1/videos/sync", json={**body, "num_inference_steps": 1000}, timeout=3)
    left = VideoStore(settings).list(model=version.name).data[0]
    failed = until(http, left.id, lambda video: video["status"] == "failed")
    assert (failed["request"]["num_inference_steps"], failed["error"]["code"]) == (1000, "cancelled")
    video = until(http, http.post("/v1/videos", json=body).json()["id"], lambda video: video["progress"] == 100)
    assert video["status"] == "completed"
    assert frames_of(http.get(f"/v1/videos/{video['id']}/content").content) == 5


@pytest.mark.parametrize("deployment", ["Sampler", "Gateway"])
def test_a_video_survives_the_death_of_the_process_that_works_on_it(
    http: httpx.Client, register: Callable[..., ModelVersion], deployment: str
) -> None:
    body = {"model": register().name, "prompt": "a blue square", **STEPS, "num_inference_steps": 100}
    video_id = http.post("/v1/videos", json=body).json()["id"]
    until(http, video_id, lambda video: video["progress"] >= 5)
    kill(deployment)
    video = until(http, video_id, lambda video: video["status"] in ("completed", "failed"), seconds=120)
    assert (video["status"], video["error"]) == ("completed", None)


def test_a_problem_passes_the_proxy_as_it_is(http: httpx.Client) -> None:
    answer = http.post("/v1/videos", json={"model": "nobody", "prompt": "x"})
    assert (answer.status_code, answer.json()["code"]) == (404, "model_not_found")
    assert answer.headers["content-type"] == "application/problem+json"
    large = http.post("/v1/tuning-jobs", files={"clip": ("c.mp4", bytes(2 << 20)), "job": (None, '{"caption": "x"}')})
    assert (large.status_code, large.json()["code"]) == (422, "invalid_clip")
    ready = http.get("/readyz")
    assert (ready.status_code, ready.json()["code"]) == (503, "not_ready") and "scheduler" in ready.json()["detail"]
