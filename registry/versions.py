"""Models, their versions and aliases: look them up, name them, share them, delete them.

A version becomes visible only when all its objects are in S3 and read back with the right digests: they are uploaded under the
job's own prefix first, and the MLflow model version, which alone makes them findable, is created last (`registration`). Objects
are removed with the last version that names them (`entries` says which do); reading removes nothing.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from mlflow.entities.model_registry import ModelVersion as MlflowVersion
from mlflow.entities.model_registry import RegisteredModel

from registry.entries import Entries, folder_of, originals, version_of
from registry.errors import InvalidReference, NotFound, ObjectMissing, VersionInUse
from registry.objects import ObjectStore
from registry.registration import NEEDED, Maker, Registration, VersionInfo, objects_prefix
from registry.settings import RegistrySettings
from registry.tenants import DEFAULT_TENANT, called, owner_of, prefix_of, registered
from registry.tracking import connect, mlflow_errors, quoted
from tav_client.schemas import Model, ModelVersion, Page

_NAME = re.compile(r"(?:[a-z0-9][a-z0-9._-]{0,63}~)?[a-z0-9][a-z0-9._-]{0,63}")
_ALIAS = re.compile(r"(?!(?i:latest|v[0-9]+)$)[A-Za-z0-9_-]{1,64}")
_NUMBER = re.compile(r"[1-9][0-9]{0,8}")
_REF = re.compile(rf"(?P<name>{_NAME.pattern})(?:@(?P<alias>{_ALIAS.pattern})|/(?P<version>{_NUMBER.pattern}))?")
_SHARED = "tav.shared"
_LAST_OFFSET = 2**31


class VersionStore:
    """Models, versions and aliases, by the names that MLflow knows (`registry.tenants`). Methods block."""

    def __init__(self, settings: RegistrySettings, objects: ObjectStore | None = None) -> None:
        self.settings = settings
        self._objects = objects or ObjectStore(settings)
        self._client = connect(settings)
        self._entries = Entries(settings)
        self._registration = Registration(settings, self._objects, self._entries)

    def register(self, job: Maker, folder: Path, info: VersionInfo, before: Callable[[], None] = lambda: None) -> ModelVersion:
        """Upload every file of `folder` and, once all are verified, create the job's version.

        Called again for the same job, it returns the version that exists.

        Args:
            job: the run whose result it is.
            folder: the files.
            info: what the delta was made with.
            before: called last, before the version exists; if it raises, nothing is left behind.

        Raises:
            CorruptVersion: a file is missing, or changed meanwhile.
        """
        return self._registration.register(job, folder, info, before)

    def of_job(self, job_id: str) -> ModelVersion | None:
        """Return the version that a job registered, under the name that its model has now; never a copy of it."""
        own = originals(self._entries.of_run(job_id))
        return version_of(own[0]) if own else None

    def resolve(self, ref: str, tenant: str = DEFAULT_TENANT) -> ModelVersion:
        """Return the version that `name` (its latest), `name@alias` or `name/version` means now when `tenant` writes it.

        Raises:
            InvalidReference: it is not a reference.
            NotFound: there is no such model, alias or version.
        """
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
            entry = self._client.get_model_version_by_alias(name, alias)
        return self._own(entry, NotFound("alias", ref))

    def _latest(self, name: str) -> ModelVersion:
        newest = next(self._own_versions(name), None)
        if newest is None:
            raise NotFound("model", name)
        return newest

    def get(self, name: str, version: int) -> ModelVersion:
        """Return a version by its number."""
        self._registered(name)
        missing = NotFound("version", f"{name}/{version}")
        with mlflow_errors(self.settings, missing):
            entry = self._client.get_model_version(name, str(version))
        return self._own(entry, missing)

    def get_model(self, name: str) -> Model:
        """Return a model with its aliases and its latest version's number."""
        entry = self._registered(name)
        return self._model(entry, self._latest(name).version)

    def list_models(
        self, after: str | None = None, limit: int = 20, tenant: str | None = None, shared: bool = False
    ) -> Page[Model]:
        """Return a page of models that have a version of ours, last changed first.

        Other people's entries are left out: those without such a version, and those whose name no reference can hold.

        Args:
            after: `next_cursor` of the page before.
            limit: a page has so many, unless there are no more.
            tenant: only this one's. MLflow cannot search for names without a `~`, so plain ones are filtered here.
            shared: only those that other tenants may sample.
        """
        conditions = [f"name LIKE {quoted(prefix_of(tenant) + '%')}"] if tenant is not None and prefix_of(tenant) else []
        conditions += [f"tags.`{_SHARED}` = 'true'"] if shared else []
        models: list[Model] = []
        token = _check_cursor(after)
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
        """Let other tenants sample a model's versions, or end that."""
        self._registered(name)
        with mlflow_errors(self.settings):
            if shared:
                self._client.set_registered_model_tag(name, _SHARED, "true")
            else:
                self._client.delete_registered_model_tag(name, _SHARED)

    def is_shared(self, name: str) -> bool:
        """Return whether other tenants may sample a model."""
        return self._registered(name).tags.get(_SHARED) == "true"

    def list_versions(self, name: str, limit: int = 1000) -> list[ModelVersion]:
        """Return a model's versions, newest first."""
        self._registered(name)
        return list(islice(self._own_versions(name), limit))

    def page_versions(self, name: str, after: str | None = None, limit: int = 20) -> Page[ModelVersion]:
        """Return a page of a model's versions; `after` is `next_cursor` of the page before, its last version's number."""
        self._registered(name)
        if after is not None and not _NUMBER.fullmatch(after):
            raise NotFound("cursor", after)
        older = (version for version in self._own_versions(name) if after is None or version.version < int(after))
        versions = list(islice(older, limit + 1))
        if not versions and after is None:
            raise NotFound("model", name)
        cursor = str(versions[limit - 1].version) if len(versions) > limit else None
        return Page[ModelVersion](data=versions[:limit], next_cursor=cursor, has_more=cursor is not None)

    def _own_versions(self, name: str) -> Iterator[ModelVersion]:
        return (version for mv in self._entries.named(name) if (version := version_of(mv)) is not None)

    def set_alias(self, name: str, alias: str, version: int) -> ModelVersion:
        """Point an alias at a version, wherever it pointed before.

        Raises:
            InvalidReference: no reference can hold the alias.
        """
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
        """Remove a version's objects, unless other versions name them, then its entry, so that a failure can be repeated."""
        folder = folder_of(self.get(name, version))
        shared = folder is not None and self._remove_unnamed(folder, besides=(name, version))
        with mlflow_errors(self.settings):
            self._client.delete_model_version(name, str(version))
        if shared and folder is not None:
            self._remove_unnamed(folder)  # the other versions may have been deleted meanwhile

    def delete_model(self, name: str) -> None:
        """Remove a model with all its versions, and their objects unless versions of other models name them.

        The model's entry in MLflow stays if other people have registered versions in it.
        """
        for version in self.list_versions(name):
            self.delete_version(name, version.version)
        prefix = self._objects.uri(f"models/{name}/")
        runs = {item.uri.removeprefix(prefix).partition("/")[0] for item in self._objects.list(prefix)}
        for run in runs:  # left by a registration that failed
            self._remove_unnamed(f"{prefix}{run}/")
        if next(self._entries.named(name), None) is None:
            with mlflow_errors(self.settings):
                self._client.delete_registered_model(name)

    def delete_of_job(self, job: Maker) -> None:
        """Remove the version that a job made, and all its objects.

        Raises:
            VersionInUse: an alias or a copy relies on it.
        """
        if (reason := self.relied_on(job)) is not None:
            raise VersionInUse(reason)
        for original in originals(self._entries.of_run(job.id)):
            self.delete_version(original.name, int(original.version))
        self._remove_unnamed(self._objects.uri(objects_prefix(job)))  # left by a registration that failed

    def relied_on(self, job: Maker) -> str | None:
        """Return why a job's version must stay: an alias points at it, or a copy of it, in any model, names its objects."""
        versions = self._entries.of_run(job.id)
        own = originals(versions)
        for mv in own:
            if owner_of(mv.name) != job.tenant:
                return f"The version that job {job.id} made is another tenant's by now: ask the operator."
            if aliases := self.get(mv.name, int(mv.version)).aliases:
                at = f"{called(mv.name, job.tenant)}/{mv.version}"
                return f"@{aliases[0]} points at {at}: point it at another version, or delete the alias first."
        own_names = {(mv.name, mv.version) for mv in own}
        for folder in {folder for mv in versions if (folder := folder_of(version_of(mv)))}:
            for mv in self._entries.naming(folder):
                if (mv.name, mv.version) in own_names:
                    continue
                if owner_of(mv.name) != job.tenant:
                    return f"Another tenant has a copy of what job {job.id} made: ask the operator, who can delete that first."
                copy = f"{called(mv.name, job.tenant)}/{mv.version}"
                return f"{copy} is a copy of what job {job.id} made: delete that version first."
        return None

    def _remove_unnamed(self, folder: str, besides: tuple[str, int] | None = None) -> bool:
        """Remove a folder's objects unless versions other than `besides` name them; return whether they do."""
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
    def _own(entry: MlflowVersion, missing: NotFound) -> ModelVersion:
        """Return an entry's version; raise `missing` if it is not ours."""
        version = version_of(entry)
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


def _check_cursor(after: str | None) -> str | None:
    """Return MLflow's own page token, if it is one: MLflow answers others with an internal error.

    Raises:
        NotFound: it is none.
    """
    if after is None:
        return None
    try:
        offset = int(json.loads(base64.b64decode(after, validate=True))["offset"])
    except (ValueError, TypeError, LookupError, ArithmeticError, RecursionError) as error:
        raise NotFound("cursor", after) from error
    if not 0 < offset < _LAST_OFFSET:
        raise NotFound("cursor", after)
    return after
