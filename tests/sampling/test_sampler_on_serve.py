"""The gateway and one sampler on real Ray Serve: what a replica promises."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable
from contextlib import suppress

import av
import httpx
import pytest
import ray
from mlflow import MlflowClient

from registry.objects import ObjectStore
from registry.versions import VersionStore
from registry.videos import VideoStore
from services.sampling.client import ServeSampler
from services.sampling.deployment import deployment_name
from services.sampling.errors import SamplerLost
from services.sampling.messages import Step
from services.settings import Settings
from tav_client.schemas import ModelVersion
from tests.sampling.conftest import ENDLESS, STEPS, Drawing, Result, running, until
from tests.sampling.gate import Gate

pytestmark = pytest.mark.slow

SETTINGS = {"cancel_grace_seconds": 1.5}
LONG_STEPS = {"num_inference_steps": 100, "use_inverted_latents": False, "num_frames": 48, "size": (96, 96)}
"""Each far longer than the grace."""


def frames_of(data: bytes) -> int:
    with av.open(io.BytesIO(data)) as video:
        assert video.streams.video[0].codec_context.name == "h264"
        return sum(1 for _ in video.decode(video=0))


def kill(deployment: str) -> None:
    names = [entry["name"] for entry in ray.util.list_named_actors(all_namespaces=True) if f"#{deployment}#" in entry["name"]]
    assert len(names) == 1
    ray.kill(ray.get_actor(names[0], namespace="serve"))


async def test_every_step_is_reported_and_the_video_is_the_one_of_the_library(
    sampler: ServeSampler, register: Callable[..., ModelVersion], result: Result
) -> None:
    drawing = Drawing(sampler, register())
    video = await drawing.video()
    assert drawing.replies[:-1] == [Step(i, 3) for i in range(4)]
    assert frames_of(video.content) == 5
    expected = result.sample("a blue square")
    assert (video.content, video.latents_sha256) == (expected.encode("mp4"), expected.latents_sha256)
    assert (video.size, video.seconds) == ((16, 16), 5 / 8)
    assert video.metrics["latency_seconds"] >= video.metrics["sampling_seconds"] > 0


async def test_a_version_that_cannot_be_used_gives_its_reason_and_the_replica_goes_on(
    sampler: ServeSampler, settings: Settings, register: Callable[..., ModelVersion]
) -> None:
    objects = ObjectStore(settings)
    good, changed, gone, foreign = register(), register(), register(), register(fingerprint="f" * 64)
    objects.put_bytes(b"something else", changed.files["delta.safetensors"].uri)
    objects.delete(gone.files["latents.safetensors"].uri)
    broken = (changed, changed, gone, foreign)
    *failures, video = await asyncio.gather(
        *(Drawing(sampler, version).failure() for version in broken), Drawing(sampler, good).video()
    )
    assert [failure.code for failure in failures] == ["corrupt_version"] * 3 + ["base_mismatch"]
    named = ("delta.safetensors", "delta.safetensors", "latents.safetensors", settings.base)
    assert all(part in failure.message for failure, part in zip(failures, named, strict=True)), failures
    assert frames_of(video.content) == 5
    assert (await Drawing(sampler, good, num_frames=3).failure()).code == "invalid_config"


async def test_pinned_versions_and_those_used_before_are_sampled_while_storage_does_not_answer(
    sampler: ServeSampler, register: Callable[..., ModelVersion], pinned: ModelVersion, gate: Gate
) -> None:
    used, new = register(), register()
    await Drawing(sampler, used).video()
    gate.shut()
    try:
        waiting = Drawing(sampler, new)
        await waiting.to_step(0)
        await waiting.leave()  # while its delta loads: the replica is free again
        for version in (pinned, used):
            await Drawing(sampler, version).video()
    finally:
        gate.open()
    await Drawing(sampler, new).video()


async def test_a_caller_that_goes_away_frees_the_replica_at_the_next_step_or_its_place_in_the_queue(
    sampler: ServeSampler, settings: Settings, register: Callable[..., ModelVersion]
) -> None:
    version = register()
    sampling = Drawing(sampler, version, **ENDLESS)
    await sampling.to_step(2)
    queued, behind = Drawing(sampler, version, **ENDLESS), Drawing(sampler, version)
    in_queue, last = asyncio.ensure_future(queued.to_step(0)), asyncio.ensure_future(behind.video())
    await sampling.to_step(4)
    assert (running(settings.base), queued.replies, behind.replies) == (1, [], [])
    in_queue.cancel()
    await asyncio.wait([in_queue])
    await sampling.leave()
    await last
    assert queued.replies == []


async def test_a_caller_that_goes_away_inside_a_long_step_is_not_waited_for(
    sampler: ServeSampler, register: Callable[..., ModelVersion]
) -> None:
    version = register()
    before = (await Drawing(sampler, version).video()).replica
    long = Drawing(sampler, version, **LONG_STEPS)
    await long.to_step(1)
    await long.leave()
    while True:
        with suppress(SamplerLost):  # it was given to the replica that is ended; the gateway too asks again
            assert (await Drawing(sampler, version).video()).replica != before
            return


def test_an_alias_that_moves_counts_from_the_next_request_on(
    http: httpx.Client, settings: Settings, register: Callable[..., ModelVersion], other: Result
) -> None:
    versions, first = VersionStore(settings), register()
    second = register(first.name)
    body = {"model": f"{first.name}@production", "prompt": "a blue square", **STEPS}
    for version in (first, second, first):
        versions.set_alias(first.name, "production", version.version)
        video = http.post("/v1/videos", json=body).json()
        assert video["model_version"] == f"{first.name}/{version.version}"
        assert until(http, video["id"], lambda video: video["progress"] == 100)["status"] == "completed"


def test_over_http_a_video_is_drawn_and_a_caller_that_hangs_up_ends_it(
    http: httpx.Client, settings: Settings, register: Callable[..., ModelVersion]
) -> None:
    version = register()
    body = {"model": version.name, "prompt": "a blue square", **STEPS}
    answer = http.post("/v1/videos/sync", json=body, headers={"x-request-id": "mine"})
    assert answer.status_code == 200, answer.text
    assert frames_of(answer.content) == 5
    run = MlflowClient(settings.mlflow_tracking_uri).get_run(answer.headers["x-tav-video-id"])
    assert {"warping_error", "latency_seconds", "sampling_seconds"} <= set(run.data.metrics)
    assert (run.data.params["prompt"], run.data.tags["mlflow.parentRunId"]) == ("a blue square", version.job_id)
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


def test_over_http_a_running_video_is_followed_and_deleted_and_its_sampler_is_free_again(
    http: httpx.Client, settings: Settings, register: Callable[..., ModelVersion]
) -> None:
    body = {"model": register().name, "prompt": "a blue square"}
    video_id = http.post("/v1/videos", json={**body, **ENDLESS}).json()["id"]
    seen = []
    with http.stream("GET", f"/v1/videos/{video_id}/events") as stream:
        for line in stream.iter_lines():
            if line.startswith("data: "):
                seen.append(json.loads(line[6:]))
                if seen[-1]["step"] == 2:
                    assert http.delete(f"/v1/videos/{video_id}").json()["deleted"]
    assert [video["step"] for video in seen if video["status"] == "in_progress"][:3] == [0, 1, 2]
    assert (seen[-1]["status"], seen[-1]["error"]["code"]) == ("failed", "cancelled")
    assert http.get(f"/v1/videos/{video_id}").status_code == 404
    assert VideoStore(settings).list(model=body["model"]).data == []
    answer = http.post("/v1/videos/sync", json={**body, **STEPS, "format": "webm"})  # would wait for many minutes otherwise
    url = f"/v1/videos/{answer.headers['x-tav-video-id']}/content"
    part = http.get(url, headers={"Range": "bytes=4-9"})
    assert (answer.status_code, part.status_code, part.content) == (200, 206, answer.content[4:10])
    head = http.head(url)
    assert (head.headers["content-length"], head.headers["content-type"]) == (str(len(answer.content)), "video/webm")


@pytest.mark.parametrize("part", ["sampler", "gateway"])
def test_a_video_survives_the_death_of_the_process_that_works_on_it(
    http: httpx.Client, settings: Settings, register: Callable[..., ModelVersion], part: str
) -> None:
    body = {"model": register().name, "prompt": "a blue square", **STEPS, "num_inference_steps": 100}
    video_id = http.post("/v1/videos", json=body).json()["id"]
    until(http, video_id, lambda video: video["progress"] >= 5)
    kill(deployment_name(settings.base) if part == "sampler" else "Gateway")
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
