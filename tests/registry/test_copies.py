"""Versions share objects when they are promoted with MLflow's own call: nothing that is deleted breaks a live copy."""

from __future__ import annotations

import time
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
from registry.versions import VersionStore
from tav_client.schemas import ClipInfo, ModelVersion, TuningJob, TuningJobCreate
from tests.registry.conftest import INFO

Promote = Callable[..., ModelVersion]


@pytest.fixture
def own(registry_settings: RegistrySettings) -> RegistrySettings:
    """An experiment of its own: a sweep takes whatever is old in it."""
    return registry_settings.model_copy(update={"experiment": f"copies-{uuid.uuid4().hex[:8]}"})


@pytest.fixture
def mlflow(registry_settings: RegistrySettings) -> MlflowClient:
    return MlflowClient(registry_settings.mlflow_tracking_uri)


@pytest.fixture
def job(own: RegistrySettings, clip: ClipInfo, result: Path) -> TuningJob:
    """One that has succeeded."""
    jobs = JobStore(own)
    job = jobs.create(TuningJobCreate(caption="a ball"), clip, "offline", f"ball-{uuid.uuid4().hex[:8]}")
    jobs.start(job.id, 1)
    jobs.succeed(job.id, VersionStore(own).register(job, result, INFO).version)
    return jobs.get(job.id)


@pytest.fixture
def promote(mlflow: MlflowClient, versions: VersionStore) -> Promote:
    """Copies a version to another model by MLflow's own call."""

    def do(ref: str, model: str = "", alias: str | None = None) -> ModelVersion:
        model = model or f"live-{uuid.uuid4().hex[:8]}"
        copy = mlflow.copy_model_version(f"models:/{ref}", model)
        if alias:
            mlflow.set_registered_model_alias(model, alias, copy.version)
        return versions.get(model, int(copy.version))

    return do


def whole(versions: VersionStore, version: ModelVersion, folder: Path) -> bool:
    """Whether it is there, with all that sampling needs."""
    stored = versions.get(version.name, version.version)
    return len(list(versions.fetch(stored, folder).iterdir())) == 3


def objects_of(objects: ObjectStore, job: TuningJob) -> list[str]:
    return [item.uri for item in objects.list("models/") if job.id in item.uri]


def test_a_copy_outlives_its_source_and_the_last_of_them_takes_the_objects(
    versions: VersionStore, objects: ObjectStore, job: TuningJob, promote: Promote, tmp_path: Path
) -> None:
    first, second = promote(f"{job.model}/1"), promote(f"{job.model}/1", alias="live")
    third = promote(f"{second.name}/1")  # a copy of a copy
    versions.delete_model(job.model)
    assert whole(versions, first, tmp_path / "a") and whole(versions, versions.resolve(f"{second.name}@live"), tmp_path / "b")
    versions.delete_version(first.name, first.version)
    versions.delete_model(second.name)
    assert whole(versions, third, tmp_path / "c")
    versions.delete_version(third.name, third.version)
    assert objects_of(objects, job) == []


def test_a_deleted_copy_leaves_its_source_whole(
    versions: VersionStore, job: TuningJob, promote: Promote, tmp_path: Path
) -> None:
    for copy in (promote(f"{job.model}/1"), promote(f"{job.model}/1", job.model)):
        versions.delete_version(copy.name, copy.version)
    assert whole(versions, versions.resolve(job.model), tmp_path / "source")


def test_a_version_that_was_registered_by_hand_from_a_versions_folder_keeps_its_objects(
    versions: VersionStore, objects: ObjectStore, mlflow: MlflowClient, job: TuningJob
) -> None:
    name = f"By Hand's {uuid.uuid4().hex[:8]}"
    mlflow.create_registered_model(name)
    source = mlflow.get_model_version(job.model, "1").source
    for address in (source, f"{source}/"):
        mlflow.create_model_version(name, address, await_creation_for=0)
    versions.delete_model(job.model)
    assert objects_of(objects, job)


def test_a_job_is_kept_while_a_copy_of_its_version_lives(
    own: RegistrySettings, versions: VersionStore, objects: ObjectStore, job: TuningJob, promote: Promote, tmp_path: Path
) -> None:
    copy, removal = promote(f"{job.model}/1", alias="live"), Removal(own, objects)
    assert removal.sweep(time.time() + 1, None) == 0
    for _ in range(2):
        with pytest.raises(VersionInUse, match=f"{copy.name}/1 is a copy of what job {job.id} made"):
            removal.job(job)
        assert JobStore(own).get(job.id) == job and whole(versions, copy, tmp_path / "copy")
        if job.model in [model.name for model in versions.list_models(limit=100).data]:
            versions.delete_model(job.model)  # what remains is the copy alone
    versions.delete_model(copy.name)
    assert removal.sweep(time.time() + 1, None) == 1
    assert objects_of(objects, job) == []


def test_a_job_is_kept_while_an_alias_points_at_its_version(
    own: RegistrySettings, versions: VersionStore, objects: ObjectStore, job: TuningJob, tmp_path: Path
) -> None:
    versions.set_alias(job.model, "production", 1)
    with pytest.raises(VersionInUse, match=f"@production points at {job.model}/1"):
        Removal(own, objects).job(job)
    assert whole(versions, versions.resolve(f"{job.model}@production"), tmp_path / "kept")
    versions.delete_alias(job.model, "production")
    Removal(own, objects).job(job)
    assert objects_of(objects, job) == []


def test_asking_for_a_jobs_version_removes_nothing(
    own: RegistrySettings, versions: VersionStore, mlflow: MlflowClient, job: TuningJob, promote: Promote
) -> None:
    copies = [promote(f"{job.model}/1"), promote(f"{job.model}/1", job.model)]
    first = mlflow.get_model_version(job.model, "1")
    mlflow.create_model_version(job.model, first.source, job.id, tags=first.tags, await_creation_for=0)
    original = versions.of_job(job.id)
    assert original is not None and (original.name, original.version) == (job.model, 1)
    assert versions.relied_on(job)
    for copy in copies:
        assert versions.get(copy.name, copy.version) == copy
    assert [version.version for version in versions.list_versions(job.model)] == [3, 2, 1]


def test_a_renamed_models_objects_are_found_under_its_old_name_and_removed(
    own: RegistrySettings, versions: VersionStore, objects: ObjectStore, mlflow: MlflowClient, job: TuningJob, tmp_path: Path
) -> None:
    renamed = f"renamed-{uuid.uuid4().hex[:8]}"
    mlflow.rename_registered_model(job.model, renamed)
    assert whole(versions, versions.resolve(renamed), tmp_path / "renamed")
    original = versions.of_job(job.id)
    assert original is not None and original.name == renamed
    versions.delete_model(renamed)
    assert objects_of(objects, job) == []
    with pytest.raises(NotFound):
        versions.get(renamed, 1)


def test_a_deleted_model_leaves_the_objects_of_one_that_had_its_name_before(
    own: RegistrySettings,
    clip: ClipInfo,
    result: Path,
    versions: VersionStore,
    mlflow: MlflowClient,
    job: TuningJob,
    tmp_path: Path,
) -> None:
    renamed = f"renamed-{uuid.uuid4().hex[:8]}"
    mlflow.rename_registered_model(job.model, renamed)
    again = JobStore(own).create(TuningJobCreate(caption="a ball"), clip, "offline", job.model)
    versions.register(again, result, INFO)
    versions.delete_model(job.model)
    assert whole(versions, versions.resolve(renamed), tmp_path / "renamed")
    Removal(own, ObjectStore(own)).job(job)  # the job's own version, wherever it is
    with pytest.raises(NotFound):
        versions.resolve(renamed)
