"""What a user sees where no sampler can be started."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

from tav_client.schemas import ModelVersion
from tests.sampling.conftest import STEPS, until

pytestmark = pytest.mark.slow

SETTINGS = {"sampler_cpus": 1000.0, "video_queue_seconds": 3.0, "sampler_grace_seconds": 1.0}
"""Serve grants the grace also to a sampler that never started."""


def test_a_video_that_no_sampler_takes_up_fails_with_a_reason_and_the_gateway_stays_up(
    http: httpx.Client, register: Callable[..., ModelVersion]
) -> None:
    body = {"model": register().name, "prompt": "a blue square", **STEPS}
    video = until(http, http.post("/v1/videos", json=body).json()["id"], lambda video: video["status"] == "failed")
    assert video["error"]["code"] == "no_resources" and "within 3 s" in video["error"]["message"]
    waited = http.post("/v1/videos/sync", json=body)
    assert (waited.status_code, waited.json()["code"]) == (503, "no_resources") and waited.headers["retry-after"]
    assert http.get("/healthz").status_code == 200
