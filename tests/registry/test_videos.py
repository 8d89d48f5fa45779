"""A video is a run nested under its tuning job's."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from mlflow import MlflowClient

from registry.errors import NotFound, NotReady
from registry.jobs import JobStore
from registry.registration import VersionInfo
from registry.settings import RegistrySettings
from registry.versions import VersionStore
from registry.videos import VideoStore
from tav_client.schemas import Failure, FailureCode, ModelVersion, TuningJob, VideoCreate, VideoPage, VideoStatus

INFO = VersionInfo(base="offline", base_fingerprint="f" * 64, caption="a red ball is moving", num_frames=8, size=(64, 48))


@pytest.fixture
def version(versions: VersionStore, new_job: Callable[..., TuningJob], result: Path) -> ModelVersion:
    return versions.register(new_job(), result, INFO)


def test_a_videos_life_is_kept_in_its_run(
    videos: VideoStore, version: ModelVersion, registry_settings: RegistrySettings
) -> None:
    queued = videos.create(VideoCreate(model=f"{version.name}@production", prompt="a blue ball", seed=3), version)
    assert (queued.status, queued.model_version) == (VideoStatus.queued, f"{version.name}/1")
    assert queued.model == f"{version.name}@production"
    assert queued.id in [video.id for video in videos.open()]
    videos.start(queued.id)
    assert videos.get(queued.id).status is VideoStatus.in_progress
    with pytest.raises(NotReady, match="not completed"):
        videos.content(queued.id)
    done = videos.complete(queued.id, b"mp4 bytes", 1.5, (64, 48), {"sampling_seconds": 2.5})
    assert done == VideoStore(registry_settings).get(queued.id)
    assert (done.status, done.progress, done.seconds, done.size) == (VideoStatus.completed, 100, "1.5", "64x48")
    assert done.completed_at is not None
    assert videos.content(queued.id) == b"mp4 bytes"
    assert queued.id not in [video.id for video in videos.open()]


def test_a_video_is_nested_under_its_job_and_plays_from_the_mlflow_server(
    videos: VideoStore, version: ModelVersion, registry_settings: RegistrySettings, jobs: JobStore
) -> None:
    video = videos.create(VideoCreate(model=version.name, prompt="a blue ball"), version)
    videos.complete(video.id, b"mp4 bytes", 1, (64, 48))
    client = MlflowClient(registry_settings.mlflow_tracking_uri)
    run, parent = client.get_run(video.id), client.get_run(version.job_id)
    assert run.data.tags["mlflow.parentRunId"] == version.job_id
    assert run.info.experiment_id == parent.info.experiment_id
    url = f"{registry_settings.mlflow_tracking_uri}/get-artifact"
    assert httpx.get(url, params={"run_uuid": video.id, "path": "video.mp4"}).content == b"mp4 bytes"
    with pytest.raises(NotFound):
        jobs.get(video.id)


def test_a_failed_video_tells_why(videos: VideoStore, version: ModelVersion) -> None:
    video = videos.create(VideoCreate(model=version.name, prompt="a blue ball", format="gif"), version)
    videos.fail(video.id, Failure(code=FailureCode.base_mismatch, message="Made with another base."))
    failed = videos.get(video.id)
    assert (failed.status, failed.error) == (
        VideoStatus.failed,
        Failure(code=FailureCode.base_mismatch, message="Made with another base."),
    )


def test_videos_page_newest_first_and_a_deleted_one_is_gone(videos: VideoStore, version: ModelVersion) -> None:
    ids = [videos.create(VideoCreate(model=version.name, prompt=f"ball {i}"), version).id for i in range(3)]
    page = videos.list(limit=2, model=version.name)
    assert [video.id for video in page.data] == ids[:0:-1]
    videos.delete(ids[1])
    assert [video.id for video in videos.list(after=page.next_cursor, model=version.name).data] == [ids[0]]
    with pytest.raises(NotFound):
        videos.get(ids[1])


def test_what_was_accepted_within_other_bounds_stays_readable_and_listed(
    videos: VideoStore, version: ModelVersion, registry_settings: RegistrySettings
) -> None:
    new = videos.create(
        VideoCreate(model=version.name, prompt="a blue ball", size=(64, 48), use_inverted_latents=False), version
    )
    client = MlflowClient(registry_settings.mlflow_tracking_uri)
    request = json.loads(client.get_run(new.id).data.tags["tav.request"])
    earlier = request | {"fps": 1e-300, "seed": 2**65, "size": [7, 9], "guidance_interval": [0.9, 0.1], "prompt": "x" * 1500}
    client.set_tag(new.id, "tav.request", json.dumps(earlier))
    [listed] = [video for video in videos.list(model=version.name).data if video.id == new.id]
    assert (listed.request.fps, listed.request.seed, listed.request.size) == (1e-300, 2**65, (7, 9))
    assert listed.prompt == listed.request.prompt == "x" * 1500
    assert not listed.request.use_inverted_latents, "the rest is as it was"
    sent = VideoPage.model_validate_json(videos.list(model=version.name).model_dump_json())
    assert listed.request in [video.request for video in sent.data], "clients read it too"
    videos.delete(new.id)
