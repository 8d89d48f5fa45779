"""`client.models` and `client.videos`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fastapi import Response

import tav_client
from tav_client import TavClient

BYTES = b"\x00\x00\x00\x18ftypmp42" + bytes(5000)


def content(media_type: str = "video/mp4") -> Response:
    headers = {"x-tav-model-version": "red-ball/1", "x-tav-video-id": "v1"}
    return Response(BYTES, 200, headers, media_type)


@pytest.fixture
def sampling(service: Any) -> Any:
    """A service on which a video is completed at the third look."""
    soon = {"openai_poll_after_ms": "10"}
    half = service.video("in_progress", progress=50)
    service.on("POST", "/v1/videos", service.ok(service.video(), **soon))
    service.on("GET", "/v1/videos/v1", service.ok(half, **soon), service.ok(service.video("completed", progress=100)))
    service.on("GET", "/v1/videos/v1/content", content())
    service.on("POST", "/v1/videos/sync", content())
    return service


def test_models_are_listed_over_pages(service: Any, client: TavClient) -> None:
    service.on("GET", "/v1/models", service.page(service.model("a"), cursor="c"), service.page(service.model("b")))
    assert [model.name for model in client.models.list(page_size=1)] == ["a", "b"]
    assert service.asked[1].query == {"limit": "1", "after": "c"}


@pytest.mark.parametrize(
    ("arguments", "number"),
    [
        (("red-ball",), 2),
        (("red-ball", 1), 1),
        (("red-ball/1",), 1),
        (("red-ball@production",), 1),
        (("red-ball", "production"), 1),
    ],
)
def test_a_version_is_found_by_number_alias_or_as_the_latest(
    service: Any, client: TavClient, arguments: tuple[Any, ...], number: int
) -> None:
    service.on("GET", "/v1/models/red-ball", service.ok(service.model()))
    service.on("GET", f"/v1/models/red-ball/versions/{number}", service.ok(service.version(number)))
    assert client.models.version(*arguments).version == number


def test_an_unknown_alias_is_not_found(service: Any, client: TavClient) -> None:
    service.on("GET", "/v1/models/red-ball", service.ok(service.model()))
    with pytest.raises(tav_client.NotFound, match="no alias 'staging'; it has production") as caught:
        client.models.version("red-ball@staging")
    assert caught.value.code == "version_not_found"


def test_a_video_is_waited_for_and_saved(sampling: Any, client: TavClient, tmp_path: Path) -> None:
    seen: list[int] = []
    video = client.videos.create(model="red-ball", prompt="a blue ball", guidance_scale=9.0, seed=None)
    assert sampling.asked[0].json == {"model": "red-ball", "prompt": "a blue ball", "guidance_scale": 9.0}
    assert sampling.asked[0].headers["idempotency-key"]
    assert video.wait(on_update=lambda snapshot: seen.append(snapshot.progress)).status == "completed"
    assert seen == [0, 50, 100]
    saved = video.save(tmp_path / "new" / "blue.mp4")
    assert saved.read_bytes() == BYTES
    assert [path.name for path in saved.parent.iterdir()] == ["blue.mp4"]


def test_a_size_is_a_pair_or_openais_words(sampling: Any, client: TavClient) -> None:
    for size in ("96x64", (96, 64)):
        client.videos.create(model="red-ball", prompt="x", use_inverted_latents=False, size=size)
    assert [asked.json["size"] for asked in sampling.asked] == [[96, 64]] * 2


def test_saving_waits_first(sampling: Any, client: TavClient, tmp_path: Path) -> None:
    assert client.videos.create(model="red-ball", prompt="a blue ball").save(tmp_path / "a.mp4").read_bytes() == BYTES


@pytest.mark.parametrize("name", ["a.mp4", "A.MP4", "a.m4v", "a.webm", "a.gif", "a"])
def test_a_names_ending_says_the_format(service: Any, client: TavClient, tmp_path: Path, name: str) -> None:
    format = {"a.webm": "webm", "a.gif": "gif"}.get(name, "mp4")
    kind = "image/gif" if format == "gif" else f"video/{format}"
    service.on("POST", "/v1/videos", service.ok(service.video("completed", format=format)))
    service.on("GET", "/v1/videos/v1/content", content(kind))
    client.videos.create_and_save(tmp_path / name, model="red-ball", prompt="x")
    assert service.asked[0].json.get("format") == (None if name == "a" else format)
    assert (tmp_path / name).read_bytes() == BYTES


@pytest.mark.parametrize(("name", "options"), [("x.avi", {}), ("x.mov", {}), ("x.gif", {"format": "mp4"}), ("x.png", {})])
def test_a_name_that_is_no_formats_is_refused_and_nothing_is_sent(
    service: Any, client: TavClient, tmp_path: Path, name: str, options: dict[str, str]
) -> None:
    with pytest.raises(tav_client.InvalidRequest, match=rf"{name}.*end"):
        client.videos.create_and_save(tmp_path / name, model="red-ball", prompt="x", **options)
    assert service.asked == []


def test_a_video_is_not_saved_under_another_formats_name(sampling: Any, client: TavClient, tmp_path: Path) -> None:
    video = client.videos.create(model="red-ball", prompt="a blue ball")
    for save in (video.save, video.content().save, lambda path: client.videos.download("v1", path)):
        with pytest.raises(tav_client.InvalidRequest, match=r"\.mp4"):
            save(tmp_path / "blue.webm")
    assert list(tmp_path.iterdir()) == []


def test_the_synchronous_call_answers_bytes_that_know_their_version(sampling: Any, client: TavClient, tmp_path: Path) -> None:
    video = client.videos.sync(model="red-ball@production", prompt="a blue ball")
    assert video == BYTES
    assert (video.model_version, video.video_id, video.content_type) == ("red-ball/1", "v1", "video/mp4")
    assert video.save(tmp_path / "a.mp4").read_bytes() == BYTES


def test_the_synchronous_call_is_not_made_twice_after_a_defect(service: Any, client: TavClient) -> None:
    service.on("POST", "/v1/videos/sync", service.problem(500, "internal", retry_after_ms="1"))
    with pytest.raises(tav_client.ServerError):
        client.videos.sync(model="red-ball", prompt="x")
    assert len(service.asked) == 1


def test_a_failed_video_raises_its_reason(service: Any, client: TavClient, tmp_path: Path) -> None:
    failed = service.video("failed", error={"code": "corrupt_version", "message": "Tune it again."})
    service.on("GET", "/v1/videos/v1", service.ok(failed))
    with pytest.raises(tav_client.VideoFailed, match=r"Tune it again\.") as caught:
        client.videos.get("v1").save(tmp_path / "a.mp4")
    assert caught.value.code == "corrupt_version"
    assert list(tmp_path.iterdir()) == []


def test_waiting_for_a_video_ends_at_its_timeout(service: Any, client: TavClient) -> None:
    service.on("GET", "/v1/videos/v1", service.ok(service.video(), openai_poll_after_ms="20"))
    with pytest.raises(tav_client.WaitTimeout):
        client.videos.get("v1").wait(timeout=0.1)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"model": "Bad Name"}, "model"),
        ({"fps": 0}, "fps"),
        ({"speed": 2}, "speed"),
        ({"size": "100x64"}, "size"),
        ({"size": "big"}, "size"),
        ({"scheduler": "euler"}, "scheduler"),
        ({"guidance_interval": (0.6, 0.2)}, "guidance_interval"),
        ({"guidance_interval": "half"}, "guidance_interval"),
        ({"cache_interval": 0}, "cache_interval"),
        ({"use_inverted_latents": False, "noise_blend": 0.5}, "noise_blend"),
    ],
)
def test_wrong_options_are_one_sentence_and_nothing_is_sent(
    service: Any, client: TavClient, options: dict[str, Any], field: str
) -> None:
    told = rf"^(There is no field {field}:|{field}(\[\d\])? (must|may not|needs)) "
    with pytest.raises(tav_client.InvalidRequest, match=told):
        client.videos.create(**({"model": "red-ball", "prompt": "x"} | options))
    assert service.asked == []
