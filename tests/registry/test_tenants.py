"""What is kept is a tenant's: names of different tenants do not collide, and nobody finds another's."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from registry.errors import NotFound, VersionInUse
from registry.jobs import JobStore
from registry.objects import ObjectStore
from registry.removal import Removal
from registry.settings import RegistrySettings
from registry.tenants import called, owner_of, registered
from registry.versions import VersionStore
from registry.videos import VideoStore
from tav_client.schemas import ClipInfo, ModelVersion, TuningJobCreate, VideoCreate
from tests.registry.conftest import INFO

Tuned = Callable[..., ModelVersion]


@pytest.fixture
def tuned(jobs: JobStore, versions: VersionStore, clip: ClipInfo, result: Path) -> Tuned:
    """Registers a tenant's version of a model; its job has succeeded."""

    def make(tenant: str, model: str) -> ModelVersion:
        job = jobs.create(TuningJobCreate(caption="a ball"), clip, "offline", model, tenant=tenant)
        version = versions.register(job, result, INFO)
        jobs.start(job.id, 1)
        jobs.succeed(job.id, version.version)
        return version

    return make


@pytest.mark.parametrize(
    ("name", "tenant", "in_mlflow", "seen"),
    [
        ("ball", "default", "ball", "ball"),
        ("ball", "alice", "alice~ball", "ball"),
        ("ball@production", "alice", "alice~ball@production", "ball@production"),
        ("alice~ball/3", "alice", "alice~ball/3", "ball/3"),
        ("alice~ball", "bob", "alice~ball", "alice~ball"),
        ("alice~ball", "default", "alice~ball", "alice~ball"),
        ("default~ball@beta", "bob", "ball@beta", "default~ball@beta"),
        ("default~ball", "default", "ball", "ball"),
    ],
)
def test_a_name_means_the_callers_own_model_or_says_whose(name: str, tenant: str, in_mlflow: str, seen: str) -> None:
    assert registered(name, tenant) == in_mlflow
    assert called(in_mlflow, tenant) == seen
    assert registered(seen, tenant) == in_mlflow


def test_models_of_one_name_belong_to_their_tenants(versions: VersionStore, tuned: Tuned, objects: ObjectStore) -> None:
    model = f"ball-{uuid.uuid4().hex[:8]}"
    by_tenant = {tenant: tuned(tenant, model) for tenant in ("default", "alice", "a_ice")}
    assert [(one.name, one.version) for one in by_tenant.values()] == [(model, 1), (f"alice~{model}", 1), (f"a_ice~{model}", 1)]
    for tenant, version in by_tenant.items():
        assert versions.resolve(model, tenant) == version
        listed = [one.name for one in versions.list_models(limit=1000, tenant=tenant).data]
        assert version.name in listed and {owner_of(name) for name in listed} == {tenant}
        assert version.files["delta.safetensors"].uri == objects.uri(
            f"models/{version.name}/{version.job_id}/delta.safetensors"
        )
    versions.set_alias(f"alice~{model}", "production", 1)
    with pytest.raises(NotFound):
        versions.resolve(f"{model}@production")
    versions.delete_model(f"alice~{model}")
    assert versions.resolve(model) == by_tenant["default"] and versions.resolve(model, "a_ice") == by_tenant["a_ice"]


def test_a_page_of_models_is_never_empty_while_there_are_more(versions: VersionStore, tuned: Tuned) -> None:
    mine = tuned("default", f"ball-{uuid.uuid4().hex[:8]}").name
    for _ in range(3):
        tuned("zoe", f"ball-{uuid.uuid4().hex[:8]}")  # changed last, so they come first
    assert [model.name for model in versions.list_models(limit=1, tenant="default").data] == [mine]


def test_sharing_is_the_models_own(versions: VersionStore, tuned: Tuned) -> None:
    model = f"ball-{uuid.uuid4().hex[:8]}"
    name, other = tuned("alice", model).name, tuned("bob", model).name
    assert not versions.get_model(name).shared
    versions.share(name, True)
    shared = [one.name for one in versions.list_models(limit=1000, shared=True).data]
    assert versions.is_shared(name) and name in shared and other not in shared
    versions.share(name, False)
    versions.share(name, False)
    assert not versions.is_shared(name)


def test_videos_and_their_idempotency_keys_and_cursors_are_a_tenants(videos: VideoStore, tuned: Tuned) -> None:
    model = f"ball-{uuid.uuid4().hex[:8]}"
    version, key = tuned("alice", model), uuid.uuid4().hex
    request = VideoCreate(model=model, prompt="a blue ball")
    by_tenant = {who: videos.create(request, version, key, tenant=who) for who in ("alice", "bob")}
    assert (by_tenant["alice"].model_version, by_tenant["bob"].model_version) == (f"{model}/1", f"alice~{model}/1")
    for who, other in (("alice", "bob"), ("bob", "alice")):
        assert videos.find(key, who) == videos.get(by_tenant[who].id, who) == by_tenant[who]
        assert [one.id for one in videos.list(model=version.name, tenant=who).data] == [by_tenant[who].id]
        with pytest.raises(NotFound):
            videos.get(by_tenant[other].id, who)
        with pytest.raises(NotFound, match="cursor"):
            videos.list(after=by_tenant[other].id, tenant=who)
    assert videos.find(key) is None
    assert len(videos.list(model=version.name).data) == 2


def test_a_jobs_cursor_is_a_tenants(jobs: JobStore, tuned: Tuned) -> None:
    job_id = tuned("alice", f"ball-{uuid.uuid4().hex[:8]}").job_id
    jobs.list(after=job_id, tenant="alice")
    for tenant in ("bob", "default"):
        with pytest.raises(NotFound, match="cursor"):
            jobs.list(after=job_id, tenant=tenant)


def test_who_deletes_a_job_deletes_no_version_that_is_anothers_by_now(
    registry_settings: RegistrySettings, jobs: JobStore, versions: VersionStore, tuned: Tuned, objects: ObjectStore
) -> None:
    version, new_name = tuned("alice", f"ball-{uuid.uuid4().hex[:8]}"), f"bob~ball-{uuid.uuid4().hex[:8]}"
    client = MlflowClient(registry_settings.mlflow_tracking_uri, registry_settings.mlflow_tracking_uri)
    client.rename_registered_model(version.name, new_name)  # as an operator may
    with pytest.raises(VersionInUse, match="another tenant's by now"):
        Removal(registry_settings, objects).job(jobs.get(version.job_id))
    assert versions.get(new_name, 1).job_id == version.job_id


def test_who_deletes_a_job_deletes_no_video_of_another_tenant(
    registry_settings: RegistrySettings, jobs: JobStore, videos: VideoStore, tuned: Tuned, objects: ObjectStore
) -> None:
    version = tuned("alice", f"ball-{uuid.uuid4().hex[:8]}")
    request = VideoCreate(model=version.name, prompt="a blue ball")
    mine, bobs = (videos.create(request, version, tenant=who) for who in ("alice", "bob"))
    videos.complete(bobs.id, b"bytes", 1.0, (64, 64))
    Removal(registry_settings, objects).job(jobs.get(version.job_id))
    assert videos.content(bobs.id) == b"bytes"
    with pytest.raises(NotFound):
        videos.get(mine.id)
