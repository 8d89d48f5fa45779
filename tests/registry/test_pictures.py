"""Contact sheets are where MLflow's own call would log them; models and versions describe themselves."""

from __future__ import annotations

import io
import re
import uuid
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest
from mlflow import MlflowClient
from PIL import Image

from registry.descriptions import plain
from registry.jobs import JobStore
from registry.objects import ObjectStore
from registry.pictures import contact_sheet
from registry.settings import RegistrySettings
from registry.versions import VersionStore
from registry.videos import VideoStore
from tav_client.schemas import TuningJob, VideoCreate
from tests.registry.conftest import INFO

NewJob = Callable[..., TuningJob]
LOGGED = re.compile(r"images/[\w ]+\+step\+0\+timestamp\+[0-9]{13}\+[0-9a-f-]{36}(\.png|\+compressed\.webp)")


@pytest.fixture
def client(registry_settings: RegistrySettings) -> MlflowClient:
    return MlflowClient(registry_settings.mlflow_tracking_uri)


def pictures(settings: RegistrySettings, run_id: str) -> set[str]:
    """The logged pictures of a run, as MLflow's pages ask for them."""
    address = f"{settings.mlflow_tracking_uri}/api/2.0/mlflow/artifacts/list"
    answer = httpx.get(address, params={"run_id": run_id, "path": "images"}, trust_env=False)
    return {item["path"] for item in answer.json()["files"]}


def test_a_jobs_videos_are_logged_as_pictures_once_each(
    new_job: NewJob, jobs: JobStore, client: MlflowClient, objects: ObjectStore, registry_settings: RegistrySettings
) -> None:
    job, frames = new_job(), np.full((12, 48, 64, 3), 90, np.uint8)
    for _ in range(2):  # an attempt that is repeated shows its samples again
        for key in ("source", "sample 1"):
            jobs.log_sheet(job.id, key, frames)
    names = pictures(registry_settings, job.id)
    assert len(names) == 4 and all(LOGGED.fullmatch(name) for name in names)
    assert client.get_run(job.id).data.tags["mlflow.loggedImages"] == "True"
    sheet = next(item.uri for item in objects.list("mlflow/") if job.id in item.uri and item.uri.endswith(".png"))
    assert Image.open(io.BytesIO(objects.get_bytes(sheet))).size == (4 * 64, 2 * 48)


@pytest.mark.parametrize(("frames", "size"), [(1, (64, 48)), (3, (192, 48)), (8, (256, 96)), (500, (256, 96))])
def test_a_contact_sheet_has_up_to_eight_frames_from_first_to_last(frames: int, size: tuple[int, int]) -> None:
    video = np.zeros((frames, 48, 64, 3), np.uint8)
    video[0], video[-1] = 100, 200
    sheet = Image.open(io.BytesIO(contact_sheet(video)))
    assert sheet.size == size
    assert sheet.getpixel((size[0] - 1, size[1] - 1)) == (200, 200, 200)
    assert frames == 1 or sheet.getpixel((0, 0)) == (100, 100, 100)


def test_a_large_videos_contact_sheet_stays_small() -> None:
    sheet = Image.open(io.BytesIO(contact_sheet(np.zeros((2, 720, 1280, 3), np.uint8))))
    assert sheet.size == (512, 144)


def test_a_video_is_logged_as_a_picture(
    new_job: NewJob, versions: VersionStore, videos: VideoStore, result: Path, registry_settings: RegistrySettings
) -> None:
    version = versions.register(new_job(), result, INFO)
    video = videos.create(VideoCreate(model=version.name, prompt="a ball"), version)
    videos.complete(video.id, b"bytes", 1.0, (8, 8), sheet=contact_sheet(np.zeros((2, 8, 8, 3), np.uint8)))
    assert {name.partition("+")[0] for name in pictures(registry_settings, video.id)} == {"images/video"}
    videos.delete(video.id)


def test_a_model_is_described_by_its_newest_version_unless_somebody_wrote_better(
    new_job: NewJob, versions: VersionStore, client: MlflowClient, result: Path
) -> None:
    name = f"ball-{uuid.uuid4().hex[:8]}"
    for number in (1, 2):
        job = new_job(name)
        version = versions.register(job, result, INFO)
        of_version, of_model = (
            client.get_model_version(name, str(number)).description,
            client.get_registered_model(name).description,
        )
        for text in (of_version, of_model):
            assert text.startswith("a red ball is moving") and "source.mp4" in text and f"/runs/{job.id}?workflowType=" in text
            assert "8 frames of 64x64, base offline" in text
        assert f"version {number}, the latest" in of_model and f'"model": "{name}"' in of_model
        assert versions.register(job, result, INFO) == version
    client.update_registered_model(name, "Ours, for the spring campaign.")
    versions.register(new_job(name), result, INFO)
    assert client.get_registered_model(name).description == "Ours, for the spring campaign."


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a man is skiing", "a man is skiing"),
        ("# a *bold* [link](x)", r"\# a \*bold\* \[link\](x)"),
        ("<script>x</script>", r"\<script\>x\</script\>"),
        ("two\n\nlines", "two lines"),
        ("1. first", r"1\. first"),
        ("a `code` \\", r"a \`code\` \\"),
    ],
)
def test_a_caption_is_shown_as_it_is(text: str, shown: str) -> None:
    assert plain(text) == shown
