"""`client.models`: the registry."""

from __future__ import annotations

from tav_client import _calls, schemas
from tav_client._listing import Listing
from tav_client._sync.transport import Transport


class Models:
    """Finds models and their versions, names and removes them."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self, *, page_size: int | None = None) -> Listing[schemas.Model]:
        """List all models, newest first, fetched page by page as they are iterated over."""
        return Listing(self._transport.every(lambda after: _calls.list_models(after, page_size)))

    def get(self, name: str) -> schemas.Model:
        """Return a model by name.

        Raises:
            NotFound: there is no such model.
        """
        return self._transport.send(_calls.get_model(name))

    def version(self, name: str, version: int | str | None = None) -> schemas.ModelVersion:
        """Return one version of a model.

        Args:
            name: the model's name, or `name/version` or `name@alias` in one.
            version: its number or an alias; left out, the latest.

        Raises:
            NotFound: there is no such model, version or alias.
        """
        name, number = _calls.split_ref(name, version)
        if isinstance(number, int):
            return self._transport.send(_calls.get_version(name, number))
        return self._transport.send(_calls.get_version(name, _calls.number_of(self.get(name), number)))

    def versions(self, name: str, *, page_size: int | None = None) -> Listing[schemas.ModelVersion]:
        """List all versions of a model, newest first, fetched page by page as they are iterated over.

        Raises:
            NotFound: there is no such model; when the first is asked for.
        """
        return Listing(self._transport.every(lambda after: _calls.list_versions(name, after, page_size)))

    def share(self, name: str, shared: bool = True) -> schemas.Model:
        """Let other tenants look at a model and sample it, as `TENANT~NAME`, or no longer.

        Raises:
            NotFound: there is no such model.
        """
        return self._transport.send(_calls.share_model(name, shared))

    def set_alias(self, name: str, alias: str, version: int) -> schemas.Model:
        """Make `name@alias` mean a version, from the next request on.

        Raises:
            NotFound: there is no such model or version.
        """
        return self._transport.send(_calls.set_alias(name, alias, version))

    def delete_alias(self, name: str, alias: str) -> schemas.Model:
        """Delete an alias; the version stays.

        Raises:
            NotFound: there is no such model or alias.
        """
        return self._transport.send(_calls.delete_alias(name, alias))

    def delete(self, name: str, version: int | None = None) -> None:
        """Remove a version, or without `version` the model with all of them, and their objects.

        Raises:
            NotFound: there is no such model or version.
            Conflict: it is in use; the sentence says by what.
        """
        if version is None:
            self._transport.send(_calls.delete_model(name))
        else:
            self._transport.send(_calls.delete_version(name, version))
