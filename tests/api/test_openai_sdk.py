"""The `openai` package's `client.videos` works against `/v1`."""

from __future__ import annotations

import io
from collections.abc import Iterator

import av
import openai
import pytest
from openai import OpenAI
from PIL import Image

from tav_client.schemas import Failure, FailureCode, ModelVersion
from tests.api.conftest import Gateway
from tests.api.fakes import sampled

pytestmark = pytest.mark.filterwarnings("ignore:The Sora API:DeprecationWarning")


@pytest.fixture
def sdk(gateway: Gateway, mp4: bytes) -> Iterator[OpenAI]:
    gateway.sampler.reply = sampled(mp4)
    with OpenAI(base_url=f"{gateway.http.base_url}/v1", api_key="none needed", max_retries=0) as client:
        yield client


def test_create_and_poll_gives_a_completed_video_whose_content_downloads(
    sdk: OpenAI, gateway: Gateway, version: ModelVersion, mp4: bytes
) -> None:
    video = sdk.videos.create_and_poll(
        model=f"{version.name}/1",
        prompt="a blue ball",
        seconds="4",
        size="64x64",  # type: ignore[arg-type]
        extra_body={"guidance_scale": 4.5, "use_inverted_latents": True},
    )
    assert (video.status, video.progress, video.model, video.size) == ("completed", 100, f"{version.name}/1", "64x64")
    assert isinstance(video.created_at, int) and isinstance(video.completed_at, int) and isinstance(video.seconds, str)
    request, _ = gateway.sampler.requests[0]
    assert (request.fps, request.guidance_scale) == (2.0, 4.5)
    assert sdk.videos.download_content(video.id).read() == mp4
    picture = sdk.videos.download_content(video.id, variant="thumbnail")
    assert Image.open(io.BytesIO(picture.content)).size == (64, 64)
    assert Image.open(io.BytesIO(sdk.videos.download_content(video.id, variant="spritesheet").content)).size == (256, 192)
    with av.open(io.BytesIO(sdk.videos.download_content(video.id, variant="video").content)) as played:
        assert played.streams.video[0].codec_context.name == "h264"


def test_create_answers_at_once_and_retrieve_follows(sdk: OpenAI, gateway: Gateway, version: ModelVersion) -> None:
    gateway.sampler.gate.clear()
    video = sdk.videos.create(model=version.name, prompt="a blue ball")
    assert (video.object, video.prompt, video.error) == ("video", "a blue ball", None)
    assert video.status in ("queued", "in_progress")
    with pytest.raises(openai.ConflictError, match="wait until it is completed"):
        sdk.videos.download_content(video.id)
    gateway.sampler.gate.set()
    assert sdk.videos.poll(video.id).status == "completed"
    assert sdk.videos.retrieve(video.id).completed_at


def test_list_pages_through_all_videos(sdk: OpenAI, gateway: Gateway, version: ModelVersion) -> None:
    ids = [sdk.videos.create_and_poll(model=version.name, prompt=f"ball {i}", poll_interval_ms=50).id for i in range(3)]
    newest = sdk.videos.list(limit=2)
    assert [video.id for video in newest.data] == ids[:0:-1] and newest.has_more
    listed = (video.id for video in sdk.videos.list(limit=2, order="desc"))
    assert [next(listed) for _ in range(3)] == ids[::-1]
    assert [video.id for video in sdk.videos.list(after=ids[0], order="asc", limit=2)] == ids[1:]


def test_delete_removes_a_video(sdk: OpenAI, version: ModelVersion) -> None:
    video = sdk.videos.create_and_poll(model=version.name, prompt="a blue ball")
    answer = sdk.videos.delete(video.id)
    assert (answer.id, answer.object, answer.deleted) == (video.id, "video.deleted", True)
    with pytest.raises(openai.NotFoundError, match="no video"):
        sdk.videos.retrieve(video.id)


def test_a_failure_is_told_in_openais_words(sdk: OpenAI, gateway: Gateway, version: ModelVersion) -> None:
    gateway.sampler.reply = Failure(code=FailureCode.invalid_config, message="The reason.")
    video = sdk.videos.create_and_poll(model=version.name, prompt="a blue ball")
    assert video.status == "failed" and video.error is not None
    assert (video.error.code, video.error.message) == ("invalid_config", "The reason.")


def test_what_cannot_be_done_is_answered_in_a_sentence(sdk: OpenAI, version: ModelVersion) -> None:
    with pytest.raises(openai.UnprocessableEntityError, match="inverted latents are of 64x64"):
        sdk.videos.create(model=version.name, prompt="a ball", size="1280x720")
    with pytest.raises(openai.UnprocessableEntityError, match="tune the clip"):
        sdk.videos.create(model=version.name, prompt="a ball", input_reference=("ball.png", b"png", "image/png"))
    with pytest.raises(openai.UnprocessableEntityError, match="model"):
        sdk.videos.create(prompt="a ball")
    with pytest.raises(openai.NotFoundError, match="nobody"):
        sdk.videos.create(model="nobody", prompt="a ball")
