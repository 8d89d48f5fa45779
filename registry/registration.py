"""Registration of a version: its files into S3, verified, and then its entry in MLflow, which alone makes them findable."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from mlflow.exceptions import MlflowException

from registry.descriptions import describe_model, describe_version
from registry.entries import FILES, INFO, JOB, Entries, originals, version_of
from registry.errors import CorruptVersion, NotFound
from registry.objects import ObjectStore
from registry.settings import RegistrySettings
from registry.tenants import registered
from registry.tracking import connect, key_digest, mlflow_errors
from tav_client.schemas import ModelVersion, StoredFile

if TYPE_CHECKING:
    from tav.base import Base
    from tav.delta import Delta
    from tav.latents import Latents

NEEDED = ("delta.safetensors", "latents.safetensors", "config.json")
"""The files that sampling needs."""

_DESCRIBED = "tav.described"
"""Tag with the digest of the description that we gave a model."""


@dataclass(frozen=True)
class VersionInfo:
    """What a delta was made with."""

    base: str
    base_fingerprint: str
    caption: str
    num_frames: int
    size: tuple[int, int]
    """Width and height."""

    @classmethod
    def of(cls, delta: Delta) -> VersionInfo:
        """Return what a delta says of itself."""
        origin = delta.meta.origin
        return cls(origin.base, origin.fingerprint, origin.caption, origin.num_frames, origin.size)


def version_config(base: Base, delta: Delta, latents: Latents) -> dict[str, Any]:
    """Return a version's `config.json`: what its files were made with, and how its base recommends to sample."""
    return {
        "base": base.name,
        "base_fingerprint": base.fingerprint,
        "caption": delta.meta.origin.caption,
        "delta": delta.meta.model_dump(mode="json"),
        "latents": latents.meta.model_dump(mode="json"),
        "sample": base.sample_config().model_dump(mode="json"),
    }


class Maker(Protocol):
    """The run that makes a version: a tuning job, or an import."""

    @property
    def id(self) -> str:
        """The MLflow run's."""

    @property
    def model(self) -> str:
        """What its tenant calls the model that gets the version."""

    @property
    def tenant(self) -> str:
        """Whose the version is."""


def objects_prefix(job: Maker) -> str:
    """Return what the keys of the objects of a run's version begin with."""
    return f"models/{registered(job.model, job.tenant)}/{job.id}/"


class Registration:
    """Registers versions. Methods block."""

    def __init__(self, settings: RegistrySettings, objects: ObjectStore, entries: Entries) -> None:
        self.settings = settings
        self._objects = objects
        self._entries = entries
        self._client = connect(settings)

    def register(self, job: Maker, folder: Path, info: VersionInfo, before: Callable[[], None]) -> ModelVersion:
        """Do what `VersionStore.register` says."""
        if (version := self._version_of(job.id)) is not None:
            return self._described(version)
        missing = [name for name in NEEDED if not (folder / name).is_file()]
        if missing:
            raise CorruptVersion(f"The result of job {job.id} lacks {', '.join(missing)}. Tune the clip again.")
        name, prefix = registered(job.model, job.tenant), objects_prefix(job)
        files = self._upload(folder, prefix) | self._upload_mlmodel(job.id, info.caption, prefix)
        for stored in files.values():
            if self._objects.stat(stored.uri).size != stored.size:
                raise CorruptVersion(f"{stored.uri} changed while the version was being registered. Try again.")
        self._create_model(name)
        tags = {
            JOB: job.id,
            INFO: json.dumps(asdict(info), ensure_ascii=False),
            FILES: json.dumps({name: file.model_dump(mode="json") for name, file in files.items()}),
            "base": info.base,
            "caption": info.caption,
        }
        try:
            before()
        except Exception:
            self._objects.delete_prefix(prefix)
            raise
        with mlflow_errors(self.settings):
            self._client.create_model_version(
                name,
                self._objects.uri(prefix.rstrip("/")),
                job.id,
                tags=tags,
                description=self._description(job.id, info),
                await_creation_for=0,
            )
        version = self._version_of(job.id)
        assert version is not None
        return self._described(version)

    def _upload(self, folder: Path, prefix: str) -> dict[str, StoredFile]:
        """Upload every file, over what a registration that broke off has left."""
        self._objects.delete_prefix(prefix)
        return {
            str(path.relative_to(folder)): self._objects.put_file(path, prefix + path.relative_to(folder).as_posix())
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }

    def _upload_mlmodel(self, run_id: str, caption: str, prefix: str) -> dict[str, StoredFile]:
        """Upload what makes the version a model of MLflow's."""
        from registry.signature import describe  # brings mlflow.pyfunc, which nothing else needs

        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "model"
            describe(run_id, caption, folder)
            return {path.name: self._objects.put_file(path, prefix + path.name) for path in sorted(folder.iterdir())}

    def _create_model(self, name: str) -> None:
        with mlflow_errors(self.settings):
            try:
                self._client.create_registered_model(name)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise

    def _version_of(self, job_id: str) -> ModelVersion | None:
        """Return the version that a job registered, and delete its duplicates.

        MLflow's client repeats a request whose answer was lost, and may so have created several of the same name and source.
        Nobody has been told of them yet.
        """
        versions = originals(self._entries.of_run(job_id))
        with mlflow_errors(self.settings):
            for duplicate in versions[1:]:
                if duplicate.source == versions[0].source:
                    self._client.delete_model_version(duplicate.name, duplicate.version)
        return version_of(versions[0]) if versions else None

    def _described(self, version: ModelVersion) -> ModelVersion:
        """Return the version once its model's page in MLflow describes it; a description of somebody else's stays."""
        with mlflow_errors(self.settings, NotFound("model", version.name)):
            model = self._client.get_registered_model(version.name)
        present = model.description or ""
        if not present or model.tags.get(_DESCRIBED) == key_digest(present):
            text = describe_model(version.name, version.version, self._description(version.job_id, version))
            with mlflow_errors(self.settings):
                self._client.set_registered_model_tag(version.name, _DESCRIBED, key_digest(text))
                self._client.update_registered_model(version.name, text)
        return version

    def _description(self, run_id: str, info: VersionInfo | ModelVersion) -> str:
        with mlflow_errors(self.settings, NotFound("job", run_id)):
            run = self._client.get_run(run_id)
        source = run.data.tags.get("tav.media.source")
        return describe_version(info.caption, info.base, info.num_frames, info.size, run.info.experiment_id, run_id, source)
