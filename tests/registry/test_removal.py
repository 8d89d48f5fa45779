"""Deletion that deletes, and retention."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from registry.errors import NotFound
from registry.jobs import JobStore
from registry.objects import ObjectStore
from registry.removal import Removal
from registry.settings import RegistrySettings
from registry.versions import VersionStore
from registry.videos import VideoStore
from tav_client.schemas import ClipInfo, TuningJob, TuningJobCreate, VideoCreate
from tests.registry.conftest import INFO


@pytest.fixture
def own(registry_settings: RegistrySettings) -> RegistrySettings:
    """An experiment of its own: a sweep takes whatever is old in it."""
    return registry_settings.model_copy(update={"experiment": f"removal-{uuid.uuid4().hex[:8]}"})


@pytest.fixture
def ended_job(own: RegistrySettings, clip: ClipInfo, result: Path) -> Callable[..., TuningJob]:
    def make(registered: bool = False) -> TuningJob:
        jobs = JobStore(own)
        job = jobs.create(TuningJobCreate(caption="a ball"), clip, "offline", f"ball-{uuid.uuid4().hex[:8]}")
        jobs.start(job.id, 1)
        if registered:
            jobs.succeed(job.id, VersionStore(own).register(job, result, INFO).version)
        else:
            jobs.cancel(job.id)
        return jobs.get(job.id)

    return make


def exists(own: RegistrySettings, job: TuningJob) -> bool:
    try:
        JobStore(own).get(job.id)
    except NotFound:
        return False
    return True


def test_a_sweep_removes_what_ended_before_and_keeps_versions_that_have_an_alias(
    own: RegistrySettings, ended_job: Callable[..., TuningJob], clip: ClipInfo
) -> None:
    plain, registered, relied_on = ended_job(), ended_job(True), ended_job(True)
    waiting = JobStore(own).create(TuningJobCreate(caption="a ball"), clip, "offline", "ball")
    versions = VersionStore(own)
    versions.set_alias(relied_on.model, "production", relied_on.version or 0)
    removal = Removal(own, ObjectStore(own))
    assert removal.sweep(time.time() - 60, time.time() - 60) == 0
    assert removal.sweep(time.time() + 1, None) == 2
    assert [exists(own, job) for job in (plain, registered, relied_on, waiting)] == [False, False, True, True]
    assert not list(ObjectStore(own).list(f"models/{registered.model}/"))
    with pytest.raises(NotFound):
        versions.get(registered.model, 1)


def test_a_sweep_of_videos_leaves_jobs_and_open_videos_alone(
    own: RegistrySettings, ended_job: Callable[..., TuningJob]
) -> None:
    job = ended_job(True)
    videos, version = VideoStore(own), VersionStore(own).get(job.model, job.version or 0)
    done, waiting = (videos.create(VideoCreate(model=job.model, prompt="a blue ball"), version) for _ in range(2))
    videos.complete(done.id, b"bytes", 1.0, (64, 64))
    assert Removal(own, ObjectStore(own)).sweep(None, time.time() + 1) == 1
    with pytest.raises(NotFound):
        videos.get(done.id)
    assert videos.get(waiting.id).id == waiting.id and exists(own, job)


def test_a_removal_that_broke_off_is_finished_by_asking_again(
    own: RegistrySettings, ended_job: Callable[..., TuningJob]
) -> None:
    job = ended_job(True)
    objects = ObjectStore(own)
    VersionStore(own).delete_version(job.model, job.version or 0)
    objects.put_bytes(b"left", f"models/{job.model}/{job.id}/left.bin")
    Removal(own, objects).job(job)
    assert not exists(own, job)
    assert not [item.uri for item in objects.list("") if job.id in item.uri]
