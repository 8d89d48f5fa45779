"""`AsyncTavClient`: the same calls, awaited."""

from __future__ import annotations

import asyncio
import inspect
from pathlib import Path
from typing import Any

import pytest

import tav_client
from tav_client import AsyncTavClient, TavClient
from tests.client.test_client_videos import BYTES, content


async def test_a_job_is_created_followed_and_cancelled(service: Any, tmp_path: Path) -> None:
    clip = tmp_path / "ball.mp4"
    clip.write_bytes(b"clip")
    service.on("POST", "/v1/tuning-jobs", service.ok(service.job(), 201))
    running = service.job("running", phase="tuning", step=1, total_steps=2)
    service.on("GET", "/v1/tuning-jobs/j1/events", service.events(running), service.events(service.job("succeeded", version=1)))
    service.on("POST", "/v1/tuning-jobs/j1/cancel", service.ok(service.job("cancelled")))
    async with AsyncTavClient() as client:
        job = await client.jobs.create(clip, caption="a red ball", steps=5)
        seen = []
        await job.wait(on_update=lambda snapshot: seen.append(snapshot.status.value))
        assert (seen, job.model_ref) == (["running", "succeeded"], "red-ball/1")
        assert (await client.jobs.cancel("j1")).status == "cancelled"
    assert service.asked[0].form["clip"] == ("ball.mp4", b"clip")


async def test_lists_are_iterated_over_pages(service: Any) -> None:
    service.on("GET", "/v1/videos", service.page(service.video(id="a"), cursor="c"), service.page(service.video(id="b")))
    async with AsyncTavClient() as client:
        assert [video.id async for video in client.videos.list(order="asc")] == ["a", "b"]
    assert service.asked[1].query == {"order": "asc", "after": "c"}


async def test_several_videos_are_waited_for_at_once(service: Any, tmp_path: Path) -> None:
    service.on("POST", "/v1/videos", service.ok(service.video("completed", progress=100)))
    service.on("GET", "/v1/videos/v1/content", content())
    async with AsyncTavClient() as client:
        names = [tmp_path / f"{n}.mp4" for n in range(3)]
        await asyncio.gather(*(client.videos.create_and_save(n, model="red-ball", prompt="a blue ball") for n in names))
    assert all(name.read_bytes() == BYTES for name in names)


async def test_problems_and_silence_are_the_same_errors(service: Any) -> None:
    async with AsyncTavClient(max_retries=0) as client:
        with pytest.raises(tav_client.NotFound):
            await client.models.get("absent")
    async with AsyncTavClient("http://127.0.0.1:9", max_retries=0) as client:
        with pytest.raises(tav_client.APIConnectionError, match="No tav service answers"):
            await client.models.get("absent")


def test_both_clients_have_the_same_calls_with_the_same_arguments() -> None:
    def face(client: Any) -> dict[str, str]:
        parts = [name for name in vars(client) if not name.startswith("_")]
        return {
            f"{part}.{name}": str(inspect.signature(method)).replace("Async", "")
            for part in parts
            for name, method in inspect.getmembers(getattr(client, part), inspect.ismethod)
            if not name.startswith("_")
        }

    assert face(TavClient()) == face(AsyncTavClient())
    assert "videos.create" in face(TavClient())
