"""A version is visible only when all its objects are there and their digests match."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from registry.errors import CorruptVersion, InvalidReference, NotFound, ObjectMissing, StorageUnavailable
from registry.objects import ObjectStore
from registry.registration import NEEDED, VersionInfo
from registry.settings import RegistrySettings
from registry.versions import VersionStore
from tav_client.schemas import StoredFile, TuningJob

INFO = VersionInfo(base="offline", base_fingerprint="f" * 64, caption="a red ball is moving", num_frames=8, size=(64, 48))

NewJob = Callable[..., TuningJob]


@pytest.fixture
def client(registry_settings: RegistrySettings) -> MlflowClient:
    return MlflowClient(registry_settings.mlflow_tracking_uri)


def test_a_registered_version_tells_what_it_was_made_with(versions: VersionStore, new_job: NewJob, result: Path) -> None:
    job = new_job()
    version = versions.register(job, result, INFO)
    assert (version.name, version.version, version.job_id) == (job.model, 1, job.id)
    assert dataclasses.asdict(INFO).items() <= version.model_dump().items()
    assert set(version.files) >= {*NEEDED, "preview.mp4", "MLmodel"}
    assert version.files["delta.safetensors"].uri == f"s3://tav/models/{job.model}/{job.id}/delta.safetensors"
    assert versions.get(job.model, 1) == version


def test_registering_twice_gives_the_same_version(versions: VersionStore, new_job: NewJob, result: Path) -> None:
    job = new_job()
    assert versions.register(job, result, INFO) == versions.register(job, result, INFO)
    assert len(versions.list_versions(job.model)) == 1


def test_a_version_that_mlflow_made_twice_is_one_again_when_it_is_registered_again(
    versions: VersionStore, new_job: NewJob, result: Path, client: MlflowClient
) -> None:
    job = new_job()
    version = versions.register(job, result, INFO)
    first = client.get_model_version(job.model, "1")
    client.create_model_version(job.model, first.source, job.id, tags=first.tags)  # as when the answer was lost
    assert len(versions.list_versions(job.model)) == 2
    assert versions.of_job(job.id) == version
    assert versions.register(job, result, INFO) == version
    assert versions.list_versions(job.model) == [version]


def test_an_upload_that_fails_leaves_no_version(
    versions: VersionStore, new_job: NewJob, result: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, put_file = new_job(), ObjectStore.put_file

    def break_off(self: ObjectStore, path: Path, key: str, content_type: str | None = None) -> StoredFile:
        if key.endswith("latents.safetensors"):
            raise StorageUnavailable("S3 does not answer.")
        return put_file(self, path, key, content_type)

    with monkeypatch.context() as broken:
        broken.setattr(ObjectStore, "put_file", break_off)
        with pytest.raises(StorageUnavailable):
            versions.register(job, result, INFO)
    with pytest.raises(NotFound):
        versions.resolve(job.model)
    assert versions.register(job, result, INFO).version == 1


def test_an_upload_whose_digest_differs_leaves_no_version(
    versions: VersionStore, new_job: NewJob, result: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = new_job()
    monkeypatch.setattr(ObjectStore, "_stream", lambda *_: iter([b"other"]))
    with pytest.raises(CorruptVersion, match="reads back as"):
        versions.register(job, result, INFO)
    with pytest.raises(NotFound):
        versions.get_model(job.model)


def test_an_incomplete_result_is_not_registered(versions: VersionStore, new_job: NewJob, result: Path) -> None:
    (result / "latents.safetensors").unlink()
    with pytest.raises(CorruptVersion, match=r"lacks latents\.safetensors"):
        versions.register(new_job(), result, INFO)


def test_a_reference_means_the_latest_an_alias_or_a_number(versions: VersionStore, new_job: NewJob, result: Path) -> None:
    model = f"ball-{uuid.uuid4().hex[:8]}"
    for _ in range(11):
        versions.register(new_job(model), result, INFO)
    assert versions.resolve(model).version == 11
    assert versions.resolve(f"{model}/2").version == 2
    assert versions.set_alias(model, "production", 3).aliases == ["production"]
    assert versions.resolve(f"{model}@production").version == 3
    versions.set_alias(model, "production", 2)
    assert versions.resolve(f"{model}@production").version == 2
    assert versions.get_model(model).aliases == {"production": 2}
    assert [v.version for v in versions.list_versions(model)] == list(range(11, 0, -1))
    versions.delete_alias(model, "production")
    with pytest.raises(NotFound):
        versions.resolve(f"{model}@production")


def test_an_unknown_reference_is_not_found_by_kind(versions: VersionStore, new_job: NewJob, result: Path) -> None:
    job = new_job()
    versions.register(job, result, INFO)
    for ref, kind in (
        ("nobody", "model"),
        ("nobody@production", "model"),
        (f"{job.model}@beta", "alias"),
        (f"{job.model}/9", "version"),
    ):
        with pytest.raises(NotFound, match=f"There is no {kind} ") as caught:
            versions.resolve(ref)
        assert caught.value.code == f"{kind}_not_found"


@pytest.mark.parametrize("ref", ["", "A b", "x/0", "x@", "x' OR '1'='1", "x/1/2", "../x"])
def test_a_malformed_reference_is_refused(versions: VersionStore, ref: str) -> None:
    with pytest.raises(InvalidReference, match="write name, name@alias or name/version"):
        versions.resolve(ref)


def test_a_reserved_alias_is_refused(versions: VersionStore, new_job: NewJob, result: Path) -> None:
    job = new_job()
    versions.register(job, result, INFO)
    for alias in ("latest", "Latest", "v1", "V20", "no spaces", "é", "production\n", "ａ", "x" * 65, "a\0", ""):
        with pytest.raises(InvalidReference, match="cannot be an alias"):
            versions.set_alias(job.model, alias, 1)


def test_a_fetched_version_is_what_was_registered(
    versions: VersionStore, new_job: NewJob, result: Path, tmp_path: Path
) -> None:
    version = versions.register(new_job(), result, INFO)
    folder = versions.fetch(version, tmp_path / "fetched")
    assert sorted(path.name for path in folder.iterdir()) == sorted(NEEDED)
    for name in NEEDED:
        assert (folder / name).read_bytes() == (result / name).read_bytes()


def test_a_changed_or_missing_object_is_refused_when_fetched(
    versions: VersionStore, new_job: NewJob, objects: ObjectStore, result: Path, tmp_path: Path
) -> None:
    version = versions.register(new_job(), result, INFO)
    objects.put_bytes(b"tampered", version.files["delta.safetensors"].uri)
    with pytest.raises(CorruptVersion, match=r"delta\.safetensors has sha256"):
        versions.fetch(version, tmp_path / "fetched")
    assert not (tmp_path / "fetched" / "delta.safetensors").exists()
    objects.delete(version.files["delta.safetensors"].uri)
    with pytest.raises(ObjectMissing, match=r"delta\.safetensors is not in the bucket"):
        versions.fetch(version, tmp_path / "fetched")


def test_models_are_listed_last_changed_first(versions: VersionStore, new_job: NewJob, result: Path) -> None:
    names = [versions.register(new_job(), result, INFO).name for _ in range(3)]
    first = versions.list_models(limit=2)
    assert [m.name for m in first.data] == names[:0:-1]
    assert first.has_more
    assert versions.list_models(after=first.next_cursor, limit=1).data[0].name == names[0]
    with pytest.raises(NotFound, match="Start the list again"):
        versions.list_models(after="nonsense")


def test_a_deleted_model_takes_its_objects_with_it(
    versions: VersionStore, new_job: NewJob, objects: ObjectStore, result: Path
) -> None:
    version = versions.register(new_job(), result, INFO)
    versions.delete_model(version.name)
    with pytest.raises(NotFound):
        versions.get(version.name, version.version)
    assert list(objects.list(f"models/{version.name}/")) == []


def test_a_version_somebody_else_put_into_mlflow_is_none_of_ours(versions: VersionStore, client: MlflowClient) -> None:
    name = f"foreign-{uuid.uuid4().hex[:8]}"
    client.create_registered_model(name)
    client.create_model_version(name, "s3://elsewhere/model", await_creation_for=0)
    with pytest.raises(NotFound):
        versions.resolve(name)
    with pytest.raises(NotFound):
        versions.get(name, 1)
    assert name not in listed(versions)


def test_versions_that_others_register_under_our_name_hide_none_of_ours(
    versions: VersionStore, new_job: NewJob, result: Path, client: MlflowClient
) -> None:
    version = versions.register(new_job(), result, INFO)
    ours = client.get_model_version(version.name, "1")
    client.create_model_version(version.name, "s3://elsewhere/model", await_creation_for=0)
    client.create_model_version(version.name, ours.source, tags={**ours.tags, "tav.info": "{}"}, await_creation_for=0)
    client.create_model_version(version.name, ours.source, tags={**ours.tags, "tav.files": "[1"}, await_creation_for=0)
    assert versions.resolve(version.name) == version
    assert versions.get_model(version.name).latest_version == 1
    assert versions.list_versions(version.name) == versions.list_versions(version.name, limit=1) == [version]
    assert version.name in listed(versions)
    versions.delete_model(version.name)
    assert [mv.version for mv in client.search_model_versions(f"name = '{version.name}'")] == ["4", "3", "2"]  # theirs
    with pytest.raises(NotFound):
        versions.resolve(version.name)


FOREIGN = [
    "O'Brien's",
    "Capitals",
    "two words",
    "both \"kinds\" of 'quotes'",
    "back\\",
    "ünï-cödé",
    "x" * 100,
    "-dash",
    "a`b",
    "%",
    "a\nb",
]


def test_models_with_names_that_no_reference_can_hold_are_left_out_and_disturb_nobody(
    versions: VersionStore, new_job: NewJob, result: Path, client: MlflowClient
) -> None:
    version = versions.register(new_job(), result, INFO)
    foreign = [f"{name}{uuid.uuid4().hex[:4]}{name[-1]}" for name in FOREIGN]
    try:
        for name in foreign:
            client.copy_model_version(f"models:/{version.name}/1", name)
        assert not set(foreign) & set(listed(versions)) and version.name in listed(versions)
        for name in foreign:
            with pytest.raises(NotFound, match="There is no model"):
                versions.get_model(name)
        page = versions.list_models(limit=1)  # filled from beyond the foreign ones, which changed last
        assert [model.name for model in page.data] == [version.name]
    finally:
        for name in foreign:
            client.delete_registered_model(name)


def test_an_alias_that_others_set_and_no_reference_can_hold_is_not_shown_but_can_be_removed(
    versions: VersionStore, new_job: NewJob, result: Path, client: MlflowClient
) -> None:
    version = versions.register(new_job(), result, INFO)
    client.set_registered_model_alias(version.name, "é", "1")
    assert versions.get_model(version.name).aliases == {}
    versions.delete_alias(version.name, "é")
    assert client.get_registered_model(version.name).aliases == {}


def listed(versions: VersionStore) -> list[str]:
    """The names of all models."""
    names, page = [], versions.list_models(limit=50)
    names += [model.name for model in page.data]
    while page.next_cursor:
        page = versions.list_models(page.next_cursor, limit=50)
        names += [model.name for model in page.data]
    return names
