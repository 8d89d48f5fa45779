"""The registry's models as a caller sees them: its tenant's by plain names, and shared ones as `OWNER~NAME`."""

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
    """The models that a caller may see; another tenant's model that is not shared does not exist here. Methods block.

    Args:
        versions: the store of all tenants' versions.
        caller: for a request about all tenants nothing is hidden.
    """

    def __init__(self, versions: VersionStore, caller: Caller) -> None:
        self._versions, self._scope, self._viewer = versions, caller.scope, caller.viewer

    def readable(self, name: str) -> str:
        """Return the registered name of a model that the caller may look at and sample.

        Raises:
            NotFound: there is none, or it is another tenant's own.
        """
        model = registered(name, self._viewer)
        with self._caller_names():
            if not self._owns(model) and not self._versions.is_shared(model):
                raise NotFound("model", model)
        return model

    def writable(self, name: str) -> str:
        """Return the registered name of a model that the caller may change.

        Raises:
            NotFound: as of `readable`.
            ApiError: 403, another tenant shares it.
        """
        model = self.readable(name)
        if not self._owns(model):
            raise ApiError(
                403, "forbidden", f"{name} is shared by tenant {owner_of(model)}, which alone may change it: sample it."
            )
        return model

    def list(self, after: str | None, limit: int, shared: bool) -> Page[Model]:
        """Return the caller's models, or those that any tenant shares."""
        page = self._versions.list_models(after, limit, None if shared else self._scope, shared)
        page.data = [self._shown(model) for model in page.data]
        return page

    def get_model(self, name: str) -> Model:
        """Return a model with its aliases.

        Raises:
            NotFound: as of `readable`.
        """
        model = self.readable(name)
        with self._caller_names():
            return self._shown(self._versions.get_model(model))

    def get_version(self, name: str, version: int) -> ModelVersion:
        """Return a version by its number, under its registered name.

        Raises:
            NotFound: there is no such version that the caller may see.
        """
        model = self.readable(name)
        with self._caller_names():
            return self._versions.get(model, version)

    def list_versions(self, name: str, after: str | None, limit: int) -> Page[ModelVersion]:
        """Return a model's versions, newest first.

        Raises:
            NotFound: as of `readable`.
        """
        model = self.readable(name)
        with self._caller_names():
            page = self._versions.page_versions(model, after, limit)
        page.data = [self.shown(version) for version in page.data]
        return page

    def resolve(self, ref: str) -> ModelVersion:
        """Return the version that a well-formed reference names now, under its registered name, by which samplers know it.

        Raises:
            NotFound: there is no such version that the caller may see.
        """
        self.readable(re.split("[@/]", ref)[0])
        with self._caller_names():
            return self._versions.resolve(ref, self._viewer)

    def set_alias(self, name: str, alias: str, version: int) -> Model:
        """Point an alias at a version; raise as `writable` does."""
        model = self.writable(name)
        with self._caller_names():
            self._versions.set_alias(model, alias, version)
            return self._shown(self._versions.get_model(model))

    def delete_alias(self, name: str, alias: str) -> Model:
        """Remove an alias; raise as `writable` does."""
        model = self.writable(name)
        with self._caller_names():
            self._versions.delete_alias(model, alias)
            return self._shown(self._versions.get_model(model))

    def share(self, name: str, shared: bool) -> Model:
        """Share a model with all tenants, or stop sharing it; raise as `writable` does."""
        model = self.writable(name)
        with self._caller_names():
            self._versions.get_model(model)
            self._versions.share(model, shared)
            return self._shown(self._versions.get_model(model))

    def shown(self, version: ModelVersion) -> ModelVersion:
        """Return a version under the caller's name for its model."""
        return version.model_copy(update={"name": called(version.name, self._viewer)})

    def _shown(self, model: Model) -> Model:
        return model.model_copy(update={"name": called(model.name, self._viewer)})

    def _owns(self, model: str) -> bool:
        return self._scope in (None, owner_of(model))

    @contextmanager
    def _caller_names(self) -> Iterator[None]:
        """Let a `NotFound` call the model by the caller's name for it."""
        try:
            yield
        except NotFound as error:
            if error.kind not in ("model", "version", "alias"):
                raise
            raise NotFound(error.kind, called(error.name, self._viewer)) from error
