"""Samplers that come and go with the load, on two bases side by side, and what a user sees of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from services.sampling.client import ServeSampler
from services.sampling.messages import SampledVideo
from services.settings import Settings
from tav_client import TavClient
from tav_client.schemas import ModelVersion
from tests.eventually import eventually
from tests.sampling.conftest import STEPS, Drawing, Result, running, until

pytestmark = pytest.mark.slow

QUEUE = 6
SETTINGS = {
    "sampler_max_replicas": 2,
    "sampler_cpus": 0.3,
    "sampler_idle_seconds": 3.0,
    "max_queued_videos": QUEUE,
}


def body(version: ModelVersion, **fields: Any) -> dict[str, Any]:
    return {"model": f"{version.name}/{version.version}", "prompt": "a blue square", **STEPS, **fields}


def test_load_takes_the_samplers_from_none_to_two_and_back_and_no_request_fails(
    http: httpx.Client, settings: Settings, register: Callable[..., ModelVersion]
) -> None:
    versions = [register() for _ in range(3)]
    videos: list[str] = []

    def open_videos() -> int:
        return sum(http.get(f"/v1/videos/{video}").json()["status"] in ("queued", "in_progress") for video in videos[-QUEUE:])

    def two_after_more_work() -> bool:
        while open_videos() < QUEUE - 2:
            response = http.post("/v1/videos", json=body(versions[len(videos) % 3], num_inference_steps=100))
            assert response.status_code == 200, response.text
            videos.append(response.json()["id"])
        return running(settings.base) == 2

    eventually(lambda: running(settings.base) == 0, "samplers stay")
    eventually(two_after_more_work, "there are not two samplers", 120)
    ended = [until(http, video, lambda video: video["status"] in ("completed", "failed"), 120) for video in videos]
    assert [video["error"] for video in ended] == [None] * len(videos)
    eventually(lambda: running(settings.base) == 0, "samplers stay")
    assert http.get("/healthz").status_code == 200
    assert http.post("/v1/videos/sync", json=body(versions[0])).status_code == 200


def test_a_full_queue_says_when_to_ask_again_and_the_client_that_does_gets_its_video(
    url: str, http: httpx.Client, register: Callable[..., ModelVersion]
) -> None:
    version = register()
    accepted: list[str] = []
    while (answer := http.post("/v1/videos", json=body(version, num_inference_steps=60))).status_code == 200:
        accepted.append(answer.json()["id"])
        assert len(accepted) < 10 * QUEUE
    assert (answer.status_code, answer.json()["code"]) == (503, "queue_full")
    assert int(answer.headers["retry-after"]) > 0 and int(answer.headers["retry-after-ms"]) > 0
    with TavClient(url, timeout=120, max_retries=30) as client, ThreadPoolExecutor(QUEUE) as pool:
        late = list(pool.map(lambda _: client.videos.sync(**body(version)), range(QUEUE)))
    assert len(set(late)) == 1
    for video in accepted:
        assert until(http, video, lambda video: video["status"] in ("completed", "failed"))["status"] == "completed"


async def test_each_version_goes_to_its_base_by_name_or_else_by_fingerprint(
    sampler: ServeSampler, register: Callable[..., ModelVersion], result: Result, other: Result
) -> None:
    for of in (result, other):
        expected = of.sample("a blue square").latents_sha256
        for base in ("", "/called/otherwise/where/it/was/tuned"):
            video = await Drawing(sampler, register(of=of, base=base)).video()
            assert video.latents_sha256 == expected
    stranger = await Drawing(sampler, register(fingerprint="f" * 64, base="a stranger")).failure()
    assert stranger.code == "base_mismatch" and "a stranger" in stranger.message


async def test_whichever_replica_answers_and_whatever_it_drew_before_the_latents_are_the_same(
    sampler: ServeSampler, register: Callable[..., ModelVersion], result: Result
) -> None:
    version, between = register(), register()
    videos: list[SampledVideo] = []
    async with asyncio.timeout(120):
        while len({video.replica for video in videos}) < 2:
            drawings = [Drawing(sampler, one, num_inference_steps=50) for one in (version, between) * 3]
            videos += (await asyncio.gather(*(drawing.video() for drawing in drawings)))[::2]
            other = await Drawing(sampler, between, use_inverted_latents=False, seed=7).video()
    assert len({video.latents_sha256 for video in videos}) == 1
    assert len({video.content for video in videos}) == 1
    assert other.latents_sha256 != videos[0].latents_sha256
    again = [await Drawing(sampler, version).video() for _ in range(2)]
    assert {video.latents_sha256 for video in again} == {result.sample("a blue square").latents_sha256}
