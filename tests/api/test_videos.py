"""/v1/videos over real storage, the sampler faked."""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from services.sampling.errors import SamplerLost
from services.sampling.messages import failure_of
from tav.errors import TavError
from tav_client.schemas import Failure, FailureCode, ModelVersion, Video, VideoCreate, VideoStatus
from tests.api.conftest import Gateway
from tests.api.fakes import MP4


def body(version: ModelVersion, **fields: Any) -> dict[str, Any]:
    return {"model": f"{version.name}/{version.version}", "prompt": "a blue ball", **fields}


def wait_until(gateway: Gateway, video_id: str, done: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        video: dict[str, Any] = gateway.http.get(f"/v1/videos/{video_id}").json()
        if done(video):
            return video
        threading.Event().wait(0.05)
    raise AssertionError(f"the video stays {video}")


def is_final(video: dict[str, Any]) -> bool:
    return video["status"] in ("completed", "failed")


def test_a_video_goes_from_queued_to_its_bytes(gateway: Gateway, version: ModelVersion) -> None:
    gateway.sampler.gate.clear()
    created = gateway.http.post("/v1/videos", json=body(version, guidance_scale=4, model=version.name))
    assert created.status_code == 200 and created.headers["openai-poll-after-ms"]
    video = Video.model_validate(created.json())
    assert (video.model, video.model_version) == (version.name, f"{version.name}/1")
    half = wait_until(gateway, video.id, lambda v: v["progress"] == 50)
    assert half["status"] == "in_progress"
    early = gateway.http.get(f"/v1/videos/{video.id}/content")
    assert (early.status_code, early.json()["code"], early.headers["x-should-retry"]) == (409, "video_not_ready", "false")
    assert early.json()["error"]["code"] == "video_not_ready"
    gateway.sampler.gate.set()
    done = wait_until(gateway, video.id, is_final)
    assert (done["status"], done["progress"], done["seconds"], done["size"]) == ("completed", 100, "1", "64x64")
    content = gateway.http.get(f"/v1/videos/{video.id}/content")
    assert content.content == MP4 and content.headers["content-type"] == "video/mp4"
    assert content.headers["x-tav-model-version"] == f"{version.name}/1"
    assert content.headers["x-tav-video-id"] == video.id
    request, with_version = gateway.sampler.requests[0]
    assert (request.guidance_scale, with_version.job_id) == (4, version.job_id)


def test_sync_answers_the_bytes_and_records_the_video(gateway: Gateway, version: ModelVersion) -> None:
    answer = gateway.http.post("/v1/videos/sync", json=body(version))
    assert (answer.status_code, answer.content) == (200, MP4), answer.text
    assert answer.headers["x-tav-model-version"] == f"{version.name}/1"
    recorded = gateway.http.get(f"/v1/videos/{answer.headers['x-tav-video-id']}").json()
    assert recorded["status"] == "completed"


def test_a_caller_of_sync_that_goes_away_ends_the_sampling(gateway: Gateway, version: ModelVersion) -> None:
    gateway.sampler.gate.clear()
    with pytest.raises(httpx.ReadTimeout):
        gateway.http.post("/v1/videos/sync", json=body(version), timeout=1.5)
    assert gateway.sampler.closed.wait(5)
    mine = gateway.backends.videos.list(model=version.name).data
    failed = wait_until(gateway, mine[0].id, is_final)
    assert (len(mine), failed["status"], failed["error"]["code"]) == (1, "failed", "cancelled")


def test_a_video_that_is_ended_while_its_start_is_written_stays_ended(
    gateway: Gateway, version: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on, failed = threading.Event(), threading.Event(), threading.Event()
    start, fail = gateway.backends.videos.start, gateway.backends.videos.fail

    def slow(*args: Any, **named: Any) -> Any:
        begun.set()
        assert go_on.wait(20)
        return start(*args, **named)

    def fail_and_signal(*args: Any, **named: Any) -> Any:
        try:
            return fail(*args, **named)
        finally:
            failed.set()

    monkeypatch.setattr(gateway.backends.videos, "start", slow)
    monkeypatch.setattr(gateway.backends.videos, "fail", fail_and_signal)
    with pytest.raises(httpx.ReadTimeout):
        gateway.http.post("/v1/videos/sync", json=body(version), timeout=1.5)
    assert begun.is_set()
    failed.wait(2)  # one that overtakes does so now
    go_on.set()
    (mine,) = gateway.backends.videos.list(model=version.name).data
    assert wait_until(gateway, mine.id, is_final)["error"]["code"] == "cancelled"
    assert failed.wait(20) and gateway.backends.videos.get(mine.id).status is VideoStatus.failed


@pytest.mark.parametrize(
    ("code", "status", "retry"),
    [
        ("base_mismatch", 409, "false"),
        ("corrupt_version", 500, "false"),
        ("invalid_config", 422, None),
        ("storage_unavailable", 503, None),
        ("surprise", 500, None),
    ],
)
def test_a_sampling_that_fails_says_why(
    gateway: Gateway, version: ModelVersion, code: str, status: int, retry: str | None
) -> None:
    error = TavError("the reason")
    error.code = code
    gateway.sampler.reply = failure_of(error)
    answer = gateway.http.post("/v1/videos/sync", json=body(version))
    known = code if code != "surprise" else "internal"
    category = "user" if status < 500 else "server"
    assert (answer.status_code, answer.json()["code"], answer.json()["detail"]) == (status, known, "The reason.")
    assert answer.headers.get("x-should-retry") == retry
    video = gateway.http.get(f"/v1/videos/{answer.headers['x-tav-video-id']}").json()
    assert (video["status"], video["error"]) == ("failed", {"code": known, "message": "the reason", "category": category})
    content = gateway.http.get(f"/v1/videos/{video['id']}/content")
    assert (content.status_code, content.json()["code"]) == (409, "video_not_ready")
    assert "the reason" in content.json()["detail"]


def test_a_lost_sampler_is_asked_again_and_then_given_up(start_gateway: Callable[..., Gateway], version: ModelVersion) -> None:
    gateway = start_gateway(max_attempts=2)
    gateway.sampler.reply = SamplerLost("ActorDiedError: the replica died")
    answer = gateway.http.post("/v1/videos/sync", json=body(version))
    assert (answer.status_code, answer.json()["code"]) == (503, "worker_lost")
    assert len(gateway.sampler.requests) == 2


def test_more_videos_than_may_wait_are_refused(start_gateway: Callable[..., Gateway], version: ModelVersion) -> None:
    gateway = start_gateway(max_queued_videos=1)
    gateway.sampler.gate.clear()
    first = gateway.http.post("/v1/videos", json=body(version)).json()
    refused = gateway.http.post("/v1/videos", json=body(version))
    assert (refused.status_code, refused.json()["code"]) == (503, "queue_full")
    assert refused.headers["retry-after"]
    gateway.sampler.gate.set()
    wait_until(gateway, first["id"], is_final)
    assert gateway.http.post("/v1/videos/sync", json=body(version)).status_code == 200
    assert len(gateway.backends.videos.list(model=version.name).data) == 2


def test_the_same_key_and_request_answer_the_video_made_first(gateway: Gateway, version: ModelVersion) -> None:
    headers = {"Idempotency-Key": str(uuid.uuid4())}
    first = gateway.http.post("/v1/videos", json=body(version), headers=headers).json()
    again = gateway.http.post("/v1/videos", json=body(version, seed=0), headers=headers)
    assert (again.status_code, again.json()["id"]) == (200, first["id"])
    other = gateway.http.post("/v1/videos", json=body(version, seed=1), headers=headers)
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_key_reused")
    wait_until(gateway, first["id"], is_final)


def test_a_gateway_that_starts_drives_the_videos_that_were_left_open(
    start_gateway: Callable[..., Gateway], version: ModelVersion
) -> None:
    store = start_gateway().backends.videos
    left = store.create(VideoCreate.model_validate(body(version)), version)
    store.start(left.id)
    lost = store.create(VideoCreate.model_validate(body(version)), version.model_copy(update={"version": 99}))
    gateway = start_gateway()
    assert wait_until(gateway, left.id, is_final)["status"] == "completed"
    assert wait_until(gateway, lost.id, is_final)["error"]["code"] == "corrupt_version"


def test_an_open_video_that_is_beyond_todays_bounds_fails_with_the_bound(
    start_gateway: Callable[..., Gateway], version: ModelVersion
) -> None:
    store = start_gateway().backends.videos
    request = VideoCreate.model_validate(body(version)).model_copy(update={"num_inference_steps": 5000})
    left = store.create(request, version)
    error = wait_until(start_gateway(), left.id, is_final)["error"]
    assert error["code"] == "invalid_config" and "num_inference_steps" in error["message"] and "1000" in error["message"]


def test_a_gateway_that_ends_leaves_its_videos_open(gateway: Gateway, version: ModelVersion) -> None:
    gateway.sampler.gate.clear()
    video = gateway.http.post("/v1/videos", json=body(version)).json()
    wait_until(gateway, video["id"], lambda v: v["status"] == "in_progress")
    driver = gateway.backends.driver
    loop = driver._open[video["id"]].task.get_loop()  # type: ignore[union-attr]
    asyncio.run_coroutine_threadsafe(driver.close(), loop).result(10)
    assert not gateway.backends.videos.get(video["id"]).status.final
    gateway.backends.videos.fail(video["id"], Failure(code=FailureCode.internal, message="the end of the test"))


BAD: dict[str, tuple[dict[str, Any] | list[int], int, str, str]] = {
    "unknown model": ({"model": "nobody", "prompt": "x"}, 404, "model_not_found", "nobody"),
    "unknown version": ({"version": 99}, 404, "version_not_found", "99"),
    "unknown alias": ({"alias": "production"}, 404, "version_not_found", "production"),
    "no model": ({"prompt": "x"}, 422, "invalid_request", "model"),
    "a bad model": ({"model": "../etc", "prompt": "x"}, 422, "invalid_request", "model"),
    "no prompt": ({"model": "ball"}, 422, "invalid_request", "prompt"),
    "a blank prompt": ({"prompt": "   "}, 422, "invalid_request", "prompt"),
    "a wrong type": ({"num_inference_steps": "many"}, 422, "invalid_request", "num_inference_steps"),
    "out of range": ({"guidance_scale": 0.5}, 422, "invalid_request", "guidance_scale"),
    "an unknown field": ({"colour": "red"}, 422, "invalid_request", "colour"),
    "an unknown format": ({"format": "exe"}, 422, "invalid_request", "format"),
    "other frames than the latents hold": ({"num_frames": 4}, 422, "invalid_request", "8 frames"),
    "another size than the latents hold": ({"size": "96x64"}, 422, "invalid_request", "64x64"),
    "noise blended into no latents": (
        {"noise_blend": 0.5, "use_inverted_latents": False},
        422,
        "invalid_request",
        "noise_blend",
    ),
    "guidance that ends before it begins": ({"guidance_interval": "0.6-0.2"}, 422, "invalid_request", "guidance_interval"),
    "a list": ([1], 422, "invalid_request", ""),
}


@pytest.mark.parametrize("path", ["/v1/videos", "/v1/videos/sync"])
@pytest.mark.parametrize("name", BAD)
def test_a_bad_request_is_refused_and_leaves_nothing_behind(
    gateway: Gateway, version: ModelVersion, name: str, path: str
) -> None:
    fields, status, code, words = BAD[name]
    if isinstance(fields, dict):
        if "version" in fields or "alias" in fields:
            ref = f"{version.name}/99" if "version" in fields else f"{version.name}@production"
            fields = {"model": ref, "prompt": "x"}
        elif not fields.keys() & {"model"} and name != "no model":
            fields = body(version, **fields)
    answer = gateway.http.post(path, json=fields)
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (status, code), problem
    assert problem["error"] == {"code": code, "message": problem["detail"]}
    assert words in problem["detail"] and problem["detail"].endswith(".")
    assert gateway.backends.videos.list(model=version.name).data == []
    assert gateway.sampler.requests == []


@pytest.mark.parametrize("path", ["/v1/videos/nope", "/v1/videos/nope/content", "/v1/videos/a'b"])
def test_an_unknown_video_is_404(gateway: Gateway, path: str) -> None:
    answer = gateway.http.get(path)
    assert (answer.status_code, answer.json()["code"]) == (404, "video_not_found")


def test_a_tuning_job_is_no_video_and_the_other_way_round(gateway: Gateway, version: ModelVersion) -> None:
    assert gateway.http.get(f"/v1/videos/{version.job_id}").status_code == 404
    video = gateway.http.post("/v1/videos/sync", json=body(version)).headers["x-tav-video-id"]
    assert gateway.http.get(f"/v1/tuning-jobs/{video}").status_code == 404
    assert gateway.backends.videos.get(video).status is VideoStatus.completed
