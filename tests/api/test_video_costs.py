"""A video's cost is bounded before it is accepted."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from tav_client.schemas import ModelVersion
from tests.api.conftest import Gateway, moving_square

GIB = 2**30


def body(version: ModelVersion, **fields: Any) -> dict[str, Any]:
    return {"model": version.name, "prompt": "a blue ball", **fields}


FREE = {"use_inverted_latents": False}
TOO_MUCH: list[dict[str, Any]] = [
    {**FREE, "num_frames": 512, "size": "3840x2160"},
    {**FREE, "num_frames": 512, "size": "512x512"},
    {**FREE, "num_frames": 16, "size": "2160x3840"},
    {**FREE, "num_frames": 512, "size": "4096x64", "guidance_scale": 1},
]


@pytest.mark.parametrize("options", TOO_MUCH, ids=lambda options: f"{options['num_frames']}x{options['size']}")
@pytest.mark.parametrize("path", ["/v1/videos", "/v1/videos/sync"])
def test_a_video_that_no_sampler_has_memory_for_is_refused_with_what_would_fit(
    start_gateway: Callable[..., Gateway], version: ModelVersion, options: dict[str, Any], path: str
) -> None:
    gateway = start_gateway(device="cpu", compute_threads=1, sampler_memory=2 * GIB)
    refused = gateway.http.post(path, json=body(version, **options))
    problem = refused.json()
    assert (refused.status_code, problem["code"]) == (422, "invalid_request"), problem
    assert f"{options['num_frames']} frames of {options['size']} take about" in problem["detail"]
    assert "a sampler has 2 GiB" in problem["detail"]
    assert version.name not in [
        request.model for request, *_ in gateway.sampler.requests
    ]  # it takes up what other tests left open
    assert gateway.backends.videos.list(model=version.name).data == []
    frames, size = (
        re.search(r"(\d+) frames? of that size", problem["detail"]),
        re.search(r"as many of (\d+x\d+)", problem["detail"]),
    )
    for fitting in ({"num_frames": int(frames[1])} if frames else {}, {"size": size[1]} if size else {}):
        if fitting:
            assert gateway.http.post("/v1/videos/sync", json=body(version, **{**options, **fitting})).status_code == 200


def test_a_video_that_would_take_too_long_is_refused_with_what_would_not(
    start_gateway: Callable[..., Gateway], version: ModelVersion
) -> None:
    gateway = start_gateway(device="cpu", compute_threads=1, max_video_seconds=60.0)
    refused = gateway.http.post("/v1/videos", json=body(version, num_inference_steps=1000))
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request")
    assert "8 frames of 64x64 in 1000 steps take about" in refused.json()["detail"]
    assert gateway.http.post("/v1/videos/sync", json=body(version)).status_code == 200


def test_a_job_that_no_machine_has_memory_for_is_refused(
    start_gateway: Callable[..., Gateway], monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = start_gateway(device="cpu", compute_threads=1)
    monkeypatch.setattr("services.compute._nodes", lambda: [{"CPU": 2.0, "memory": 4.0 * GIB}])
    before = gateway.contents()
    job = {"caption": "a red square", "params": {"num_frames": 48, "size": [1024, 1024]}}
    refused = gateway.submit(moving_square(48), job)
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request"), refused.text
    assert "48 frames of 1024x1024 take about" in refused.json()["detail"] and "a tuner has 4 GiB" in refused.json()["detail"]
    assert gateway.contents()[0] == before[0]
    job["params"] = {"num_frames": 8, "size": [64, 64]}
    assert gateway.submit(moving_square(48), job).status_code == 201
