"""What /v1/videos offers beyond making one: lists, events, deletion, formats, ranges, multipart."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import av
import httpx
import numpy as np
import pytest
from PIL import Image

from tav.video import Format, encode
from tav_client.schemas import Failure, FailureCode, ModelVersion, Video
from tests.api.conftest import Gateway
from tests.api.fakes import MP4, sampled
from tests.api.test_videos import body, is_final, wait_until


def completed(gateway: Gateway, version: ModelVersion, mp4: bytes, **fields: Any) -> str:
    """Create a completed video with real bytes; return its id."""
    gateway.sampler.reply = sampled(mp4)
    answer = gateway.http.post("/v1/videos/sync", json=body(version, **fields))
    assert answer.status_code == 200, answer.text
    return answer.headers["x-tav-video-id"]


def events_of(stream: httpx.Response, until_step: int | None = None) -> list[tuple[int, dict[str, Any]]]:
    """Return the numbers and videos of a stream, up to its end or a step."""
    events, number = [], 0
    for line in stream.iter_lines():
        if line.startswith("id: "):
            number = int(line[4:])
        elif line.startswith("data: "):
            events.append((number, json.loads(line[6:])))
            if events[-1][1]["step"] == until_step:
                break
    return events


def test_events_tell_every_step_and_go_on_where_they_were_cut(gateway: Gateway, version: ModelVersion) -> None:
    gateway.sampler.gate.clear()
    video_id = gateway.http.post("/v1/videos", json=body(version)).json()["id"]
    with gateway.http.stream("GET", f"/v1/videos/{video_id}/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        first = events_of(stream, until_step=5)
    gateway.sampler.gate.set()
    cut, _ = first[0]
    with gateway.http.stream("GET", f"/v1/videos/{video_id}/events", headers={"Last-Event-ID": str(cut)}) as stream:
        rest = events_of(stream)
    everything = first[:1] + rest
    assert [number for number, _ in everything] == list(range(cut, cut + len(everything)))
    steps = [video["step"] for _, video in everything if video["status"] == "in_progress"]
    assert steps == list(range(steps[0], 11)) and steps[0] <= 5
    assert {video["total_steps"] for _, video in everything if video["status"] == "in_progress"} == {10}
    assert (rest[-1][1]["status"], rest[-1][1]["progress"]) == ("completed", 100)


def test_events_of_an_ended_video_are_its_final_snapshot(gateway: Gateway, version: ModelVersion, mp4: bytes) -> None:
    video_id = completed(gateway, version, mp4)
    for headers in ({}, {"Last-Event-ID": "9"}, {"Last-Event-ID": "x"}):
        with gateway.http.stream("GET", f"/v1/videos/{video_id}/events", headers=headers) as stream:
            [(number, video)] = events_of(stream)
        assert (video["id"], video["status"]) == (video_id, "completed")
        assert number == (10 if headers.get("Last-Event-ID") == "9" else 1)


def test_videos_are_listed_in_both_orders_page_by_page(gateway: Gateway, version: ModelVersion, mp4: bytes) -> None:
    ids = [completed(gateway, version, mp4, seed=seed) for seed in range(3)]

    def pages(order: str) -> list[str]:
        ids: list[str] = []
        after = None
        while True:
            params = {"model": version.name, "limit": 2, "order": order, **({"after": after} if after else {})}
            page = gateway.http.get("/v1/videos", params=params).json()
            listed = [video["id"] for video in page["data"]]
            assert (page["object"], page["first_id"], page["last_id"]) == ("list", listed[0], listed[-1])
            ids += listed
            if not page["has_more"]:
                assert page["next_cursor"] is None
                return ids
            after = page["next_cursor"]
            assert after == page["last_id"]

    assert pages("asc") == ids
    assert pages("desc") == ids[::-1]
    refused = gateway.http.get("/v1/videos", params={"after": "nonsense"})
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request")


def test_a_list_shows_how_far_a_video_is(gateway: Gateway, version: ModelVersion) -> None:
    gateway.sampler.gate.clear()
    video_id = gateway.http.post("/v1/videos", json=body(version)).json()["id"]
    wait_until(gateway, video_id, lambda v: v["step"] == 5)
    [listed] = gateway.http.get("/v1/videos", params={"model": version.name}).json()["data"]
    assert (listed["status"], listed["progress"], listed["step"], listed["total_steps"]) == ("in_progress", 50, 5, 10)
    gateway.sampler.gate.set()
    wait_until(gateway, video_id, is_final)


def test_a_deleted_video_leaves_no_object_and_no_run(gateway: Gateway, version: ModelVersion, mp4: bytes) -> None:
    before = {item.uri for item in gateway.backends.objects.list("")}
    video_id = completed(gateway, version, mp4)
    assert {item.uri for item in gateway.backends.objects.list("")} > before
    answer = gateway.http.delete(f"/v1/videos/{video_id}")
    assert answer.json() == {"id": video_id, "object": "video.deleted", "deleted": True}
    assert {item.uri for item in gateway.backends.objects.list("")} == before
    for path in (video_id, f"{video_id}/content", f"{video_id}/events"):
        assert gateway.http.get(f"/v1/videos/{path}").json()["code"] == "video_not_found"
    again = gateway.http.delete(f"/v1/videos/{video_id}")
    assert (again.status_code, again.json()["code"]) == (404, "video_not_found")
    assert gateway.http.get("/v1/videos", params={"model": version.name}).json()["data"] == []


def test_deleting_a_running_video_ends_its_sampling(start_gateway: Callable[..., Gateway], version: ModelVersion) -> None:
    gateway = start_gateway(max_queued_videos=1)
    gateway.sampler.gate.clear()
    video_id = gateway.http.post("/v1/videos", json=body(version)).json()["id"]
    wait_until(gateway, video_id, lambda v: v["status"] == "in_progress")
    with gateway.http.stream("GET", f"/v1/videos/{video_id}/events") as stream:
        assert gateway.http.delete(f"/v1/videos/{video_id}").json()["deleted"]
        *_, (_, last) = events_of(stream)
    assert (last["status"], last["error"]["code"]) == ("failed", "cancelled")
    assert gateway.sampler.closed.is_set()
    assert gateway.http.get(f"/v1/videos/{video_id}").status_code == 404
    gateway.sampler.gate.set()
    assert gateway.http.post("/v1/videos/sync", json=body(version)).status_code == 200  # its place is free


def test_content_comes_in_ranges(gateway: Gateway, version: ModelVersion, mp4: bytes) -> None:
    url = f"/v1/videos/{completed(gateway, version, mp4)}/content"
    whole = gateway.http.get(url)
    size, etag = len(mp4), whole.headers["etag"]
    assert (whole.status_code, whole.content, whole.headers["accept-ranges"]) == (200, mp4, "bytes")

    def ranged(value: str, **headers: str) -> httpx.Response:
        return gateway.http.get(url, headers={"Range": value, **{k.replace("_", "-"): v for k, v in headers.items()}})

    for value, start, end in (
        ("bytes=0-0", 0, 0),
        ("bytes=10-19", 10, 19),
        ("bytes=10-", 10, size - 1),
        ("bytes=-7", size - 7, size - 1),
        (f"bytes=5-{size * 2}", 5, size - 1),
        (f"bytes=-{size * 2}", 0, size - 1),
    ):
        part = ranged(value)
        assert (part.status_code, part.headers["content-range"]) == (206, f"bytes {start}-{end}/{size}"), value
        assert part.content == mp4[start : end + 1]
        assert (part.headers["etag"], part.headers["content-type"]) == (etag, "video/mp4")
    for value in (f"bytes={size}-", "bytes=-0"):
        beyond = ranged(value)
        assert (beyond.status_code, beyond.json()["code"]) == (416, "range_not_satisfiable"), value
        assert beyond.headers["content-range"] == f"bytes */{size}"
    for value in ("bytes=5-3", "bytes=-", "bytes=a-b", "lines=1-2", "bytes=0-1,4-5"):
        assert (ranged(value).status_code, ranged(value).content) == (200, mp4), value
    assert ranged("bytes=0-3", if_range=etag).status_code == 206
    assert ranged("bytes=0-3", if_range='"other"').content == mp4
    for header in (etag, f"W/{etag}", f'"other", {etag}'):
        known = gateway.http.get(url, headers={"If-None-Match": header})
        assert (known.status_code, known.content) == (304, b"")
    head = gateway.http.head(url)
    assert (head.status_code, head.headers["content-length"], head.content) == (200, str(size), b"")


@pytest.mark.parametrize("file_format", ["mp4", "gif", "webm"])
def test_a_video_in_any_format_has_a_thumbnail_and_a_sheet(
    gateway: Gateway, version: ModelVersion, mp4: bytes, file_format: Format
) -> None:
    with av.open(io.BytesIO(mp4)) as source:
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in source.decode(video=0)])
    video_id = completed(gateway, version, encode(frames, 8, file_format), format=file_format)
    url = f"/v1/videos/{video_id}/content"
    assert gateway.http.get(url).headers["content-type"] == {"gif": "image/gif"}.get(file_format, f"video/{file_format}")
    pictures = {}
    for variant in ("thumbnail", "spritesheet"):
        answer = gateway.http.get(url, params={"variant": variant})
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/jpeg")
        pictures[variant] = np.asarray(Image.open(io.BytesIO(answer.content)), np.int16)
    assert pictures["thumbnail"].shape == (64, 64, 3)
    assert pictures["spritesheet"].shape == (3 * 64, 4 * 64, 3)
    assert np.abs(pictures["thumbnail"] - frames[6]).mean() < 12
    assert np.abs(pictures["spritesheet"][64:128, 128:192] - frames[6]).mean() < 12  # the seventh: second row, third
    refused = gateway.http.get(url, params={"variant": "poster"})
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request")


@pytest.mark.parametrize("path", ["/v1/videos", "/v1/videos/sync"])
def test_a_request_may_be_multipart(gateway: Gateway, version: ModelVersion, path: str) -> None:
    fields = {
        "model": version.name,
        "prompt": "a blue ball",
        "guidance_scale": "4.5",
        "seed": "7",
        "use_inverted_latents": "false",
        "num_frames": "",
        "size": "32x24",
        "guidance_interval": "0-0.6",
    }
    answer = gateway.http.post(path, files={name: (None, value) for name, value in fields.items()})
    assert answer.status_code == 200, answer.text
    request, _ = gateway.sampler.requests[0]
    assert (request.guidance_scale, request.seed, request.use_inverted_latents, request.num_frames) == (4.5, 7, False, None)
    assert (request.size, request.guidance_interval) == ((32, 24), (0, 0.6))
    for parts, words in (
        ({"model": (None, version.name)}, "prompt"),
        ({"model": (None, version.name), "prompt": (None, "x"), "seed": (None, "many")}, "seed"),
        (
            {"model": (None, version.name), "prompt": (None, "x"), "input_reference": ("a.png", b"x")},
            "input_reference is a file",
        ),
    ):
        refused = gateway.http.post(path, files=parts)
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request")
        assert words in refused.json()["detail"]
    other = gateway.http.post(path, content=b"x", headers={"Content-Type": "text/plain"})
    assert (other.status_code, other.json()["code"]) == (415, "unsupported_media_type")


def test_seconds_set_the_rate_and_size_must_be_the_clips(gateway: Gateway, version: ModelVersion) -> None:
    response = gateway.http.post("/v1/videos/sync", json=body(version, seconds="4", size="64x64"))
    assert response.status_code == 200, response.text
    assert gateway.sampler.requests[0][0].fps == 2.0  # eight frames
    for fields, words in (
        ({"seconds": 4, "fps": 8}, "give one of them"),
        ({"seconds": 0.01}, "120"),
        ({"size": "1280x720"}, "64x64"),
        ({"size": "big"}, "size"),
    ):
        refused = gateway.http.post("/v1/videos/sync", json=body(version, **fields))
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request"), fields
        assert words in refused.json()["detail"]


def test_a_video_that_is_not_recorded_is_answered_and_leaves_nothing(gateway: Gateway, version: ModelVersion) -> None:
    before = gateway.contents()
    answer = gateway.http.post("/v1/videos/sync", json=body(version, record=False))
    assert (answer.status_code, answer.content) == (200, MP4)
    assert answer.headers["x-tav-model-version"] == f"{version.name}/1" and "x-tav-video-id" not in answer.headers
    assert gateway.contents() == before and gateway.backends.videos.list(model=version.name).data == []
    refused = gateway.http.post("/v1/videos", json=body(version, record=False))
    assert refused.status_code == 422 and "/v1/videos/sync" in refused.json()["detail"]
    gateway.sampler.gate.clear()
    with pytest.raises(httpx.ReadTimeout):
        gateway.http.post("/v1/videos/sync", json=body(version, record=False), timeout=1)
    gateway.sampler.closed.clear()
    gateway.sampler.gate.set()
    gateway.sampler.reply = Failure(code=FailureCode.invalid_config, message="the reason")
    failed = gateway.http.post("/v1/videos/sync", json=body(version, record=False))
    assert (failed.status_code, failed.json()["detail"]) == (422, "The reason.")


def test_a_request_with_fields_of_another_release_is_still_shown(gateway: Gateway, version: ModelVersion) -> None:
    later = Video.model_validate(
        gateway.http.post("/v1/videos", json=body(version)).json() | {"request": {**body(version), "of_a_later_release": 1}}
    )
    assert later.request.prompt == "a blue ball"
    wait_until(gateway, later.id, is_final)
