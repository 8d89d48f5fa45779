"""The registry as a caller sees it: its tenant's models by plain names, and what others share as `OWNER~NAME`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from registry.errors import NotFound
from registry.tenants import called, owner_of, registered
from registry.versions import VersionStore
from services.api.callers import Caller
from services.api.http.errors import ApiError
from tav_client.schemas import Model, ModelVersion, Page


class Catalog:
    """Everything of another tenant that is not shared is missing here. Methods block.

    Args:
        versions: All tenants'.
        caller: Who asks; about all tenants' things, nothing is hidden.
    """

    def __init__(self, versions: VersionStore, caller: Caller) -> None:
        self._versions, self._scope, self._viewer = versions, caller.scope, caller.viewer

    def readable(self, name: str) -> str:
        """What MLflow calls a model that the caller may look at and sample.

        Raises:
            NotFound: there is none, or it is another tenant's own.
        """
        found = registered(name, self._viewer)
        with self._as_named():
            if not self._owns(found) and not self._versions.is_shared(found):
                raise NotFound("model", found)
        return found

    def own(self, name: str) -> str:
        """What MLflow calls a model that the caller may change.

        Raises:
            NotFound: as of `readable`.
            ApiError: 403, another tenant shares it.
        """
        found = self.readable(name)
        if not self._owns(found):
            raise ApiError(
                403, "forbidden", f"{name} is shared by tenant {owner_of(found)}, which alone may change it: sample it."
            )
        return found

    def list(self, after: str | None, limit: int, shared: bool) -> Page[Model]:
        """The caller's models; or those that any tenant shares."""
        page = self._versions.list_models(after, limit, None if shared else self._scope, shared)
        page.data = [self.model_as_named(model) for model in page.data]
        return page

    def get_model(self, name: str) -> Model:
        """A model with its aliases."""
        found = self.readable(name)
        with self._as_named():
            return self.model_as_named(self._versions.get_model(found))

    def get(self, name: str, version: int) -> ModelVersion:
        """A version by its number, under its registered name."""
        found = self.readable(name)
        with self._as_named():
            return self._versions.get(found, version)

    def versions(self, name: str, after: str | None, limit: int) -> Page[ModelVersion]:
        """A model's versions, newest first."""
        found = self.readable(name)
        with self._as_named():
            page = self._versions.page_versions(found, after, limit)
        page.data = [self.as_named(version) for version in page.data]
        return page

    def resolve(self, ref: str) -> ModelVersion:
        """What a well-formed reference means now, under its registered name: what samplers know."""
        self.readable(re.split("[@/]", ref)[0])
        with self._as_named():
            return self._versions.resolve(ref, self._viewer)

    def set_alias(self, name: str, alias: str, version: int) -> Model:
        """Let an alias point at a version."""
        found = self.own(name)
        with self._as_named():
            self._versions.set_alias(found, alias, version)
            return self.model_as_named(self._versions.get_model(found))

    def delete_alias(self, name: str, alias: str) -> Model:
        """Remove an alias."""
        found = self.own(name)
        with self._as_named():
            self._versions.delete_alias(found, alias)
            return self.model_as_named(self._versions.get_model(found))

    def share(self, name: str, shared: bool) -> Model:
        """Let other tenants sample a model, or no longer."""
        found = self.own(name)
        with self._as_named():
            self._versions.get_model(found)
            self._versions.share(found, shared)
            return self.model_as_named(self._versions.get_model(found))

    def model_as_named(self, model: Model) -> Model:
        """A model under the caller's name for it."""
        return model.model_copy(update={"name": called(model.name, self._viewer)})

    def as_named(self, version: ModelVersion) -> ModelVersion:
        """A version under the caller's name for its model."""
        return version.model_copy(update={"name": called(version.name, self._viewer)})

    def _owns(self, found: str) -> bool:
        return self._scope in (None, owner_of(found))

    @contextmanager
    def _as_named(self) -> Iterator[None]:
        """What is missing is said to be so under the caller's name for it."""
        try:
            yield
        except NotFound as error:
            if error.kind not in ("model", "version", "alias"):
                raise
            raise NotFound(error.kind, called(error.name, self._viewer)) from error
