"""Prompts and captions that are longer than the base reads: said, or refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

import pytest

from tav_client.schemas import ModelVersion
from tests.api.conftest import Gateway
from tests.api.test_videos import is_final, wait_until

LONG = "professional cinematic high quality footage shot on a tripod with soft light, of a blue box & a cat moving on snow"
END = "a blue box & a cat moving on snow"


def body(version: ModelVersion, **fields: Any) -> dict[str, Any]:
    return {"model": version.name, "prompt": "a blue ball", **fields}


def test_a_video_says_what_of_its_prompts_was_not_read(gateway: Gateway, version: ModelVersion) -> None:
    video = gateway.http.post("/v1/videos", json=body(version, prompt=LONG, negative_prompt="bad, " * 30)).json()
    assert set(video["unread"]) == {"prompt", "negative_prompt"} and video["unread"]["prompt"].endswith(END)
    assert wait_until(gateway, video["id"], is_final)["unread"] == video["unread"]
    assert gateway.backends.videos.get(video["id"]).unread == video["unread"]
    assert gateway.http.post("/v1/videos", json=body(version)).json()["unread"] == {}


@pytest.mark.parametrize("record", [True, False])
def test_the_bytes_of_a_video_say_so_in_a_header(gateway: Gateway, version: ModelVersion, record: bool) -> None:
    gateway.sampler.unread = {"prompt": END}
    answer = gateway.http.post("/v1/videos/sync", json=body(version, prompt=LONG, record=record))
    assert answer.status_code == 200 and parse_qs(answer.headers["x-tav-unread"])["prompt"][0].endswith(END)
    gateway.sampler.unread = {}
    assert "x-tav-unread" not in gateway.http.post("/v1/videos/sync", json=body(version, record=record)).headers


def test_where_the_gateway_does_not_have_the_base_the_sampler_says_it(
    gateway: Gateway, version: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.api.unread_texts.reader_of", lambda _: None)
    gateway.sampler.unread = {"prompt": END}
    video = gateway.http.post("/v1/videos", json=body(version, prompt=LONG)).json()
    assert wait_until(gateway, video["id"], is_final)["unread"] == {"prompt": END}
    assert gateway.backends.videos.get(video["id"]).unread == {"prompt": END}


@pytest.mark.parametrize("path", ["/v1/videos", "/v1/videos/sync"])
@pytest.mark.parametrize("field", ["prompt", "negative_prompt"])
def test_who_does_not_want_a_prompt_cut_is_refused(gateway: Gateway, version: ModelVersion, path: str, field: str) -> None:
    request = body(version, truncate="error") | {field: LONG}
    refused = gateway.http.post(path, json=request)
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request"), refused.text
    assert refused.json()["errors"][0]["loc"] == [field] and END in refused.json()["detail"]
    assert gateway.sampler.requests == [] and gateway.backends.videos.list(model=version.name).data == []
    assert gateway.http.post("/v1/videos/sync", json=body(version, truncate="error")).status_code == 200


def test_a_job_says_so_too_or_is_refused_and_leaves_nothing_behind(start_gateway: Callable[..., Gateway], mp4: bytes) -> None:
    gateway = start_gateway()
    job = gateway.submit(mp4, {"caption": LONG, "validation_prompts": ["a cat", LONG]}).json()
    assert set(job["unread"]) == {"caption", "validation_prompts.1"} and job["unread"]["caption"].endswith(END)
    assert gateway.http.get(f"/v1/tuning-jobs/{job['id']}").json()["unread"] == job["unread"]
    before = gateway.contents()
    refused = gateway.submit(mp4, {"caption": "a cat", "validation_prompts": ["a cat", LONG], "truncate": "error"})
    assert (refused.status_code, refused.json()["errors"][0]["loc"]) == (422, ["validation_prompts", 1])
    assert gateway.contents() == before
    assert gateway.submit(mp4, {"caption": "a cat", "truncate": "error"}).json()["unread"] == {}
