"""Model versions: a delta, its inverted latents and what they were made with.

A version becomes visible only when all its objects are in S3 and read back with the right digests: they are uploaded
under the job's own prefix first, and the MLflow model version, which alone makes them findable, is created last.
Objects are removed with the last version that names them (`registry.entries` says which do); reading removes nothing.
"""

from __future__ import annotations

import base64
import json
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from mlflow.entities.model_registry import ModelVersion as MlflowVersion
from mlflow.entities.model_registry import RegisteredModel
from mlflow.exceptions import MlflowException

from registry.descriptions import describe_model, describe_version
from registry.entries import FILES, INFO, JOB, Entries, folder_of, is_copy, version_of
from registry.errors import CorruptVersion, InvalidReference, NotFound, ObjectMissing, VersionInUse
from registry.objects import ObjectStore
from registry.settings import RegistrySettings
from registry.tenants import DEFAULT_TENANT, called, owner_of, prefix_of, registered
from registry.tracking import connect, key_digest, mlflow_errors, quoted
from tav_client.schemas import Model, ModelVersion, Page, StoredFile

if TYPE_CHECKING:
    from tav.base import Base
    from tav.delta import Delta
    from tav.latents import Latents

NEEDED = ("delta.safetensors", "latents.safetensors", "config.json")
"""The files that sampling needs."""

_NAME = re.compile(r"(?:[a-z0-9][a-z0-9._-]{0,63}~)?[a-z0-9][a-z0-9._-]{0,63}")
_ALIAS = re.compile(r"(?!(?i:latest|v[0-9]+)$)[A-Za-z0-9_-]{1,64}")
_NUMBER = re.compile(r"[1-9][0-9]{0,8}")
_REF = re.compile(rf"(?P<name>{_NAME.pattern})(?:@(?P<alias>{_ALIAS.pattern})|/(?P<version>{_NUMBER.pattern}))?")
_SHARED = "tav.shared"
_DESCRIBED = "tav.described"
"""Tag that has the digest of the description that we gave a model."""
_LAST_OFFSET = 2**31


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
        """What a delta says of itself."""
        origin = delta.meta.origin
        return cls(origin.base, origin.fingerprint, origin.caption, origin.num_frames, origin.size)


def version_config(base: Base, delta: Delta, latents: Latents) -> dict[str, Any]:
    """A version's `config.json`: what its files were made with, and how its base recommends to sample."""
    return {
        "base": base.name,
        "base_fingerprint": base.fingerprint,
        "caption": delta.meta.origin.caption,
        "delta": delta.meta.model_dump(mode="json"),
        "latents": latents.meta.model_dump(mode="json"),
        "sample": base.sample_config().model_dump(mode="json"),
    }


class Maker(Protocol):
    """The run that made a version: a tuning job, or an import."""

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
    """Below this key are the objects of the version that a run makes."""
    return f"models/{registered(job.model, job.tenant)}/{job.id}/"


class VersionStore:
    """Models, versions and aliases, by the names that MLflow knows (`registry.tenants`). Methods block."""

    def __init__(self, settings: RegistrySettings, objects: ObjectStore | None = None) -> None:
        self.settings = settings
        self._objects = objects or ObjectStore(settings)
        self._client = connect(settings)
        self._entries = Entries(settings)

    def register(self, job: Maker, folder: Path, info: VersionInfo, before: Callable[[], None] = lambda: None) -> ModelVersion:
        """Upload every file of `folder` and, once all are verified, create the job's version.

        Called again for the same job it gives the version that is already there.

        Args:
            job: Whose result it is.
            folder: The files.
            info: What the delta was made with.
            before: Called last of all before the version exists; what it raises leaves nothing behind.
        """
        if (done := self._once(job.id)) is not None:
            return self._told(done)
        absent = [name for name in NEEDED if not (folder / name).is_file()]
        if absent:
            raise CorruptVersion(f"The result of job {job.id} lacks {', '.join(absent)}. Tune the clip again.")
        name, prefix = registered(job.model, job.tenant), objects_prefix(job)
        self._objects.delete_prefix(prefix)
        files = {
            str(path.relative_to(folder)): self._objects.put_file(path, prefix + path.relative_to(folder).as_posix())
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        files |= self._describe(job.id, info.caption, prefix)
        for stored in files.values():
            if self._objects.stat(stored.uri).size != stored.size:
                raise CorruptVersion(f"{stored.uri} changed while the version was being registered. Try again.")
        self._ensure_model(name)
        tags = {
            JOB: job.id,
            INFO: json.dumps(
                {
                    "base": info.base,
                    "base_fingerprint": info.base_fingerprint,
                    "caption": info.caption,
                    "num_frames": info.num_frames,
                    "size": list(info.size),
                },
                ensure_ascii=False,
            ),
            FILES: json.dumps({name: f.model_dump(mode="json") for name, f in files.items()}),
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
        made = self._once(job.id)
        assert made is not None
        return self._told(made)

    def _description(self, run_id: str, info: VersionInfo | ModelVersion) -> str:
        with mlflow_errors(self.settings, NotFound("job", run_id)):
            run = self._client.get_run(run_id)
        source = run.data.tags.get("tav.media.source")
        return describe_version(info.caption, info.base, info.num_frames, info.size, run.info.experiment_id, run_id, source)

    def _told(self, made: ModelVersion) -> ModelVersion:
        """The version, once its model's page in MLflow describes it; a description that somebody else wrote stays."""
        entry = self._registered(made.name)
        kept = entry.description or ""
        if not kept or entry.tags.get(_DESCRIBED) == key_digest(kept):
            text = describe_model(made.name, made.version, self._description(made.job_id, made))
            with mlflow_errors(self.settings):
                self._client.set_registered_model_tag(made.name, _DESCRIBED, key_digest(text))
                self._client.update_registered_model(made.name, text)
        return made

    def _once(self, job_id: str) -> ModelVersion | None:
        """The version that a job registered.

        MLflow's client repeats a request whose answer was lost, and so may have made more than one: of the same name and
        source; none of them was told to anybody yet.
        """
        own = _originals(self._entries.of_run(job_id))
        with mlflow_errors(self.settings):
            for again in own[1:]:
                if again.source == own[0].source:
                    self._client.delete_model_version(again.name, again.version)
        return version_of(own[0]) if own else None

    def of_job(self, job_id: str) -> ModelVersion | None:
        """The version that a job registered, under whatever name its model has now; never a copy of it."""
        own = _originals(self._entries.of_run(job_id))
        return version_of(own[0]) if own else None

    def _describe(self, run_id: str, caption: str, prefix: str) -> dict[str, StoredFile]:
        """Upload what makes the version a model of MLflow's."""
        from registry.signature import describe  # brings mlflow.pyfunc, which nobody else needs

        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "model"
            describe(run_id, caption, folder)
            return {path.name: self._objects.put_file(path, prefix + path.name) for path in sorted(folder.iterdir())}

    def _ensure_model(self, name: str) -> None:
        with mlflow_errors(self.settings):
            try:
                self._client.create_registered_model(name)
            except MlflowException as e:
                if e.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise

    def resolve(self, ref: str, tenant: str = DEFAULT_TENANT) -> ModelVersion:
        """The version that `name` (its latest), `name@alias` or `name/version` means now, when a tenant writes it."""
        match = _REF.fullmatch(ref)
        if match is None:
            raise InvalidReference(f"{ref!r} is not a model; write name, name@alias or name/version.")
        name, alias, number = registered(match["name"], tenant), match["alias"], match["version"]
        if number:
            return self.get(name, int(number))
        if not alias:
            return self._latest(name)
        self._registered(name)
        with mlflow_errors(self.settings, NotFound("alias", ref), invalid_is_missing=True):
            found = self._client.get_model_version_by_alias(name, alias)
        return self._own(found, NotFound("alias", ref))

    def _latest(self, name: str) -> ModelVersion:
        newest = next(self._own_versions(name), None)
        if newest is None:
            raise NotFound("model", name)
        return newest

    def get(self, name: str, version: int) -> ModelVersion:
        """One version by its number."""
        self._registered(name)
        missing = NotFound("version", f"{name}/{version}")
        with mlflow_errors(self.settings, missing):
            found = self._client.get_model_version(name, str(version))
        return self._own(found, missing)

    def get_model(self, name: str) -> Model:
        """A named entry with its aliases and latest version's number."""
        entry = self._registered(name)
        return self._model(entry, self._latest(name).version)

    def list_models(
        self, after: str | None = None, limit: int = 20, tenant: str | None = None, shared: bool = False
    ) -> Page[Model]:
        """Named entries that have a version of ours, last changed first; `after` is the former page's `next_cursor`.

        Other people's entries are left out: those without such a version, and those whose name no reference can hold.

        Args:
            after: Of the former page.
            limit: A page has so many, unless there are no more.
            tenant: Of this one only. MLflow cannot be asked for names without a `~`: the plain ones are picked out here.
            shared: Only those that others may sample.
        """
        conditions = [f"name LIKE {quoted(prefix_of(tenant) + '%')}"] if tenant is not None and prefix_of(tenant) else []
        conditions += [f"tags.`{_SHARED}` = 'true'"] if shared else []
        models: list[Model] = []
        token = _checked_cursor(after)
        while True:
            with mlflow_errors(self.settings):
                page = self._client.search_registered_models(
                    " AND ".join(conditions) or None,
                    max_results=limit - len(models),
                    order_by=["last_updated_timestamp DESC"],
                    page_token=token,
                )
            for entry in page:
                if not _NAME.fullmatch(entry.name) or tenant not in (None, owner_of(entry.name)):
                    continue
                if (newest := next(self._own_versions(entry.name), None)) is not None:
                    models.append(self._model(entry, newest.version))
            token = page.token or None
            if token is None or len(models) == limit:
                return Page[Model](data=models, next_cursor=token, has_more=token is not None)

    def share(self, name: str, shared: bool) -> None:
        """Let tenants other than its owner sample a model's versions, or no longer."""
        self._registered(name)
        with mlflow_errors(self.settings):
            if shared:
                self._client.set_registered_model_tag(name, _SHARED, "true")
            else:
                self._client.delete_registered_model_tag(name, _SHARED)

    def is_shared(self, name: str) -> bool:
        """Whether tenants other than its owner may sample it."""
        return self._registered(name).tags.get(_SHARED) == "true"

    def list_versions(self, name: str, limit: int = 1000) -> list[ModelVersion]:
        """A model's versions, newest first."""
        self._registered(name)
        return list(islice(self._own_versions(name), limit))

    def page_versions(self, name: str, after: str | None = None, limit: int = 20) -> Page[ModelVersion]:
        """Likewise page by page; `after` is the former page's `next_cursor`, its last version's number."""
        self._registered(name)
        if after is not None and not _NUMBER.fullmatch(after):
            raise NotFound("cursor", after)
        older = (version for version in self._own_versions(name) if after is None or version.version < int(after))
        found = list(islice(older, limit + 1))
        if not found and after is None:
            raise NotFound("model", name)
        cursor = str(found[limit - 1].version) if len(found) > limit else None
        return Page[ModelVersion](data=found[:limit], next_cursor=cursor, has_more=cursor is not None)

    def _own_versions(self, name: str) -> Iterator[ModelVersion]:
        return (version for mv in self._entries.named(name) if (version := version_of(mv)) is not None)

    def set_alias(self, name: str, alias: str, version: int) -> ModelVersion:
        """Let an alias point at a version, wherever it pointed before. One that no reference can hold is refused."""
        self.get(name, version)
        refused = InvalidReference(
            f"{alias!r} cannot be an alias: use 1 to 64 of A-Z a-z 0-9 - and _, and neither 'latest' nor v1, v2, ...."
        )
        if not _ALIAS.fullmatch(alias):
            raise refused
        with mlflow_errors(self.settings, refused, invalid_is_missing=True):
            self._client.set_registered_model_alias(name, alias, str(version))
        return self.get(name, version)

    def delete_alias(self, name: str, alias: str) -> None:
        """Remove an alias; the version it points at stays."""
        if alias not in self._registered(name).aliases:
            raise NotFound("alias", f"{name}@{alias}")
        with mlflow_errors(self.settings):
            self._client.delete_registered_model_alias(name, alias)

    def delete_version(self, name: str, version: int) -> None:
        """Remove a version's objects, unless other versions name them, and then itself: one that breaks off can be repeated."""
        found = self.get(name, version)
        folder = folder_of(found)
        shared = folder is not None and self._remove_unnamed(folder, besides=(name, version))
        with mlflow_errors(self.settings):
            self._client.delete_model_version(name, str(version))
        if shared and folder is not None:
            self._remove_unnamed(folder)  # the others may have been deleted at the same time

    def delete_model(self, name: str) -> None:
        """Remove a model with all its versions, and their objects unless versions of other models name them.

        The entry in MLflow stays where other people have registered versions under its name.
        """
        for version in self.list_versions(name):
            self.delete_version(name, version.version)
        prefix = self._objects.uri(f"models/{name}/")
        runs = {item.uri.removeprefix(prefix).partition("/")[0] for item in self._objects.list(prefix)}
        for run in runs:  # what a registration that broke off has left
            self._remove_unnamed(f"{prefix}{run}/")
        if next(self._entries.named(name), None) is None:
            with mlflow_errors(self.settings):
                self._client.delete_registered_model(name)

    def delete_of_job(self, job: Maker) -> None:
        """Remove the version that a job made, and all its objects.

        Raises:
            VersionInUse: somebody relies on it; `relied_on` says how.
        """
        if (reason := self.relied_on(job)) is not None:
            raise VersionInUse(reason)
        for original in _originals(self._entries.of_run(job.id)):
            self.delete_version(original.name, int(original.version))
        self._remove_unnamed(self._objects.uri(objects_prefix(job)))  # what a registration that broke off has left

    def relied_on(self, job: Maker) -> str | None:
        """Why what a job made is to stay: an alias points at it, or a copy of it, in whatever model, names its objects."""
        found = self._entries.of_run(job.id)
        originals = _originals(found)
        for own in originals:
            if owner_of(own.name) != job.tenant:
                return f"The version that job {job.id} made is another tenant's by now: ask the operator."
            if aliases := self.get(own.name, int(own.version)).aliases:
                at = f"{called(own.name, job.tenant)}/{own.version}"
                return f"@{aliases[0]} points at {at}: point it at another version, or delete the alias first."
        ours = {(mv.name, mv.version) for mv in originals}
        for folder in {folder for mv in found if (folder := folder_of(version_of(mv)))}:
            for mv in self._entries.naming(folder):
                if (mv.name, mv.version) in ours:
                    continue
                if owner_of(mv.name) != job.tenant:
                    return f"Another tenant has a copy of what job {job.id} made: ask the operator, who can delete that first."
                copy = f"{called(mv.name, job.tenant)}/{mv.version}"
                return f"{copy} is a copy of what job {job.id} made: delete that version first."
        return None

    def _remove_unnamed(self, folder: str, besides: tuple[str, int] | None = None) -> bool:
        """Remove a folder's objects, unless versions other than `besides` name them; True if they do."""
        if not folder.startswith(self._objects.uri("models/")):
            return False  # not ours to remove
        named = any((mv.name, int(mv.version)) != besides for mv in self._entries.naming(folder))
        if not named:
            self._objects.delete_prefix(folder)
        return named

    def fetch(self, version: ModelVersion, folder: Path, files: tuple[str, ...] = NEEDED) -> Path:
        """Download a version's files into `folder`, each checked against its registered digest."""
        for name in files:
            stored = version.files.get(name)
            if stored is None:
                raise ObjectMissing(f"{version.name}/{version.version} was registered without {name}. Tune the clip again.")
            self._objects.get_file(stored.uri, folder / name, stored.sha256)
        return folder

    def _registered(self, name: str) -> RegisteredModel:
        missing = NotFound("model", name)
        if not _NAME.fullmatch(name):
            raise missing
        with mlflow_errors(self.settings, missing, invalid_is_missing=True):
            return self._client.get_registered_model(name)

    @staticmethod
    def _own(found: MlflowVersion, missing: NotFound) -> ModelVersion:
        version = version_of(found)
        if version is None:
            raise missing
        return version

    @staticmethod
    def _model(entry: RegisteredModel, latest: int) -> Model:
        return Model(
            name=entry.name,
            created_at=entry.creation_timestamp / 1000,
            updated_at=entry.last_updated_timestamp / 1000,
            latest_version=latest,
            aliases={alias: int(version) for alias, version in entry.aliases.items() if _ALIAS.fullmatch(alias)},
            tenant=owner_of(entry.name),
            shared=entry.tags.get(_SHARED) == "true",
        )


def _originals(found: list[MlflowVersion]) -> list[MlflowVersion]:
    """Of a job's versions what the job registered: one, or more of that name until its registration has come to an end."""
    made = [mv for mv in found if not is_copy(mv) and version_of(mv) is not None]
    return [mv for mv in made if mv.name == made[0].name]


def _checked_cursor(after: str | None) -> str | None:
    """MLflow's own page token, which it would answer with an internal error if it is none."""
    if after is None:
        return None
    try:
        offset = int(json.loads(base64.b64decode(after, validate=True))["offset"])
    except (ValueError, TypeError, LookupError, ArithmeticError, RecursionError) as error:
        raise NotFound("cursor", after) from error
    if not 0 < offset < _LAST_OFFSET:
        raise NotFound("cursor", after)
    return after
