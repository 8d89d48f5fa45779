"""What an earlier release kept, whose models and videos were common to all tenants, becomes the right tenant's."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from mlflow import MlflowClient

from registry.errors import InvalidReference, NotFound
from registry.jobs import JobStore
from registry.migration import give_owners
from registry.objects import ObjectStore
from registry.registration import NEEDED
from registry.removal import Removal
from registry.settings import RegistrySettings
from registry.versions import VersionStore
from registry.videos import VideoStore
from tav_client.schemas import ClipInfo, TuningJob, TuningJobCreate


@dataclass
class Old:
    """Writes as that release did."""

    settings: RegistrySettings
    clip: ClipInfo

    def __post_init__(self) -> None:
        self.client = MlflowClient(self.settings.mlflow_tracking_uri, self.settings.mlflow_tracking_uri)
        self.objects, self.jobs = ObjectStore(self.settings), JobStore(self.settings)

    def version(self, tenant: str | None, model: str) -> TuningJob:
        """A job of a tenant, and its version in the model of that name; of no tenant before there were any."""
        job = self.jobs.create(TuningJobCreate(caption="a ball"), self.clip, "offline", model, tenant=tenant or "default")
        if tenant is None:
            self.client.delete_tag(job.id, "tav.tenant")
        stored = {name: self.objects.put_bytes(b"{}", f"models/{model}/{job.id}/{name}") for name in NEEDED}
        info = {"base": "offline", "base_fingerprint": "f" * 64, "caption": "a ball", "num_frames": 8, "size": [64, 64]}
        tags = {
            "tav.job_id": job.id,
            "tav.info": json.dumps(info),
            "tav.files": json.dumps({name: file.model_dump() for name, file in stored.items()}),
            "base": "offline",
        }
        if not self.client.search_registered_models(f"name = '{model}'"):
            self.client.create_registered_model(model)
        source = self.objects.uri(f"models/{model}/{job.id}")
        entry = self.client.create_model_version(model, source, job.id, tags=tags, await_creation_for=0)
        self.jobs.start(job.id, 1)
        self.jobs.succeed(job.id, int(entry.version))
        return self.jobs.get(job.id)

    def video(self, job: TuningJob, key: str) -> str:
        """A completed video of the job's version."""
        request = {"model": job.model, "prompt": "a blue ball", "format": "mp4"}
        tags = {
            "tav.kind": "video",
            "tav.request": json.dumps(request),
            "tav.model": job.model,
            "tav.model_version": f"{job.model}/{job.version}",
            "tav.idempotency_key": hashlib.sha256(key.encode()).hexdigest(),
            "tav.started_at": "1",
            "mlflow.parentRunId": job.id,
        }
        run = self.client.create_run(self.client.get_run(job.id).info.experiment_id, tags=tags)
        self.objects.put_bytes(b"bytes", f"{run.info.artifact_uri}/video.mp4")
        self.client.set_terminated(run.info.run_id)
        return str(run.info.run_id)


@pytest.fixture
def old(registry_settings: RegistrySettings, clip: ClipInfo) -> Old:
    """In an experiment of its own."""
    return Old(registry_settings.model_copy(update={"experiment": f"old-{uuid.uuid4().hex[:8]}"}), clip)


def ball() -> str:
    return f"ball-{uuid.uuid4().hex[:8]}"


def test_a_tenants_models_and_videos_are_its_own_afterwards_under_the_same_names_and_numbers(old: Old) -> None:
    model, key = ball(), uuid.uuid4().hex
    jobs = [old.version("alice", model) for _ in range(3)]
    old.client.set_registered_model_alias(model, "production", "2")
    video = old.video(jobs[1], key)
    for _ in range(2):
        give_owners(old.settings)
    versions, videos = VersionStore(old.settings), VideoStore(old.settings)
    version = versions.resolve(f"{model}@production", "alice")
    assert (version.name, version.version, version.job_id) == (f"alice~{model}", 2, jobs[1].id)
    assert versions.resolve(model, "alice").version == 3
    assert old.objects.get_bytes(version.files["delta.safetensors"].uri) == b"{}"
    with pytest.raises(NotFound):
        versions.resolve(model)
    seen = videos.get(video, "alice")
    assert (seen.tenant, seen.model_version) == ("alice", f"{model}/2")
    assert videos.find(key, "alice") == seen and videos.content(video) == b"bytes"
    assert [one.id for one in videos.list(model=f"alice~{model}", tenant="alice").data] == [video]
    with pytest.raises(NotFound):
        videos.get(video, "default")


def test_a_model_that_tenants_tuned_under_one_name_is_divided_and_every_version_keeps_its_number(old: Old) -> None:
    model = ball()
    jobs = {number: old.version(who, model) for number, who in enumerate(("alice", "default", "bob", None, "alice"), 1)}
    for alias, number in (("first", "1"), ("ours", "2"), ("bobs", "3")):
        old.client.set_registered_model_alias(model, alias, number)
    video = old.video(jobs[5], uuid.uuid4().hex)
    give_owners(old.settings)
    versions = VersionStore(old.settings)
    for tenant, numbers, aliases in (
        ("alice", [5, 1], {"first": 1}),
        ("default", [4, 2], {"ours": 2}),
        ("bob", [3], {"bobs": 3}),
    ):
        name = versions.resolve(model, tenant).name
        migrated = versions.list_versions(name)
        assert [(one.version, one.job_id) for one in migrated] == [(number, jobs[number].id) for number in numbers]
        assert versions.get_model(name).aliases == aliases
    assert VideoStore(old.settings).get(video, "alice").model_version == f"{model}/5"
    versions.delete_model(model)  # the objects of all lie below its name, and are their versions' own
    assert old.objects.get_bytes(versions.resolve(f"{model}/5", "alice").files["delta.safetensors"].uri) == b"{}"
    versions.delete_alias(f"bob~{model}", "bobs")
    Removal(old.settings, old.objects).job(jobs[3])
    left = {item.uri.split("/")[5] for item in old.objects.list(f"models/{model}/")}
    assert left == {jobs[1].id, jobs[5].id}


def test_what_was_broken_off_is_finished_by_starting_again(old: Old, monkeypatch: pytest.MonkeyPatch) -> None:
    model = ball()
    jobs = {number: old.version(who, model) for number, who in enumerate(("default", "alice", "alice"), 1)}
    set_tag = MlflowClient.set_model_version_tag
    for calls in range(1, 5):
        left = iter(range(calls))

        def tag(self: MlflowClient, *args: str, left: Iterator[int] = left) -> None:
            if next(left, None) is None:
                raise KeyboardInterrupt
            set_tag(self, *args)

        with monkeypatch.context() as broken:
            broken.setattr(MlflowClient, "set_model_version_tag", tag)
            with pytest.raises(KeyboardInterrupt):
                give_owners(old.settings)
    give_owners(old.settings)
    versions = VersionStore(old.settings)
    moved = [(one.version, one.job_id) for one in versions.list_versions(f"alice~{model}")]
    assert moved == [(3, jobs[3].id), (2, jobs[2].id)]
    assert [one.version for one in versions.list_versions(model)] == [1]


def test_a_promoted_copy_goes_with_its_tenant(old: Old) -> None:
    model, promoted = ball(), f"prod-{ball()}"
    job = old.version("alice", model)
    old.version("default", promoted)
    old.client.copy_model_version(f"models:/{model}/1", promoted)
    give_owners(old.settings)
    versions = VersionStore(old.settings)
    copy = versions.resolve(f"{promoted}/2", "alice")
    assert (copy.job_id, versions.resolve(promoted).version) == (job.id, 1)
    assert versions.resolve(model, "alice").files == copy.files


def test_what_is_nobodys_stays_as_it_is(old: Old) -> None:
    model, foreign = ball(), ball()
    job = old.version(None, model)
    video = old.video(job, uuid.uuid4().hex)
    for name in (foreign, f"""it's "{foreign}" """):
        old.client.create_registered_model(name)
    old.client.create_model_version(foreign, "s3://elsewhere/model", await_creation_for=0)
    give_owners(old.settings)
    assert VersionStore(old.settings).resolve(model).job_id == job.id
    assert VideoStore(old.settings).get(video, "default").model_version == f"{model}/1"
    assert [one.id for one in JobStore(old.settings).list(tenant="default").data] == [job.id]
    assert old.client.get_model_version(foreign, "1").source == "s3://elsewhere/model"


def test_a_number_that_is_taken_is_said_so(old: Old) -> None:
    model = ball()
    old.version("default", model)
    old.version("alice", model)
    old.client.create_registered_model(f"alice~{model}")
    for _ in range(2):
        old.client.create_model_version(
            f"alice~{model}", "s3://elsewhere/model", tags={"tav.job_id": "x"}, await_creation_for=0
        )
    with pytest.raises(InvalidReference, match=f"alice~{model} in MLflow has had a version 2"):
        give_owners(old.settings)
    old.client.delete_registered_model(f"alice~{model}")
