"""/v1/models."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request

from registry.tenants import called, owner_of
from services.api.callers import Who
from services.api.catalog import Catalog
from services.api.deps import Parts
from services.api.http.bodies import read_json
from services.api.http.errors import ApiError
from services.api.http.openapi import json_body, problems
from tav_client.schemas import AliasSet, JobStatus, Model, ModelDeleted, ModelUpdate, ModelVersion, ModelVersionDeleted, Page

Number = Annotated[int, Path(ge=1, le=999_999_999)]


def router(parts: Parts) -> APIRouter:
    """The calls on models."""
    routes = APIRouter(prefix="/models", tags=["models"])
    versions = parts.versions

    @routes.get("", summary="List models", responses=problems(422, 503))
    def list_models(
        caller: Who,
        after: Annotated[str | None, Query(max_length=2048, description="The former page's `next_cursor`.")] = None,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        shared: Annotated[bool, Query(description="Instead, those that any tenant shares with all.")] = False,
    ) -> Page[Model]:
        """Your models that have a version, last changed first."""
        return Catalog(versions, caller).list(after, limit, shared)

    @routes.get("/{name}", summary="Get a model", responses=problems(404, 503))
    def get(name: str, caller: Who) -> Model:
        """A model with its aliases."""
        return Catalog(versions, caller).get_model(name)

    @routes.patch(
        "/{name}", summary="Share a model", responses=problems(403, 404, 415, 422, 503), openapi_extra=json_body(ModelUpdate)
    )
    async def update(request: Request, name: str, caller: Who) -> Model:
        """Shared, other tenants may look at it and sample it, as `TENANT~NAME`; its owner alone may change it."""
        wanted = await read_json(request, ModelUpdate)
        model = await asyncio.to_thread(Catalog(versions, caller).share, name, wanted.shared)
        caller.did(f"{'shared' if model.shared else 'stopped sharing'} model {model.name}", model.tenant)
        return model

    @routes.delete("/{name}", summary="Delete a model", responses=problems(403, 404, 409, 503))
    async def delete(name: str, caller: Who) -> ModelDeleted:
        """Removes all its versions, their objects and its aliases; its tuning jobs and videos stay."""
        catalog = Catalog(versions, caller)
        found = await asyncio.to_thread(catalog.own, name)
        await asyncio.to_thread(catalog.get_model, name)
        refuse_while_driven(parts, found, name)
        plain, owner = called(found, owner_of(found)), owner_of(found)
        for status in (JobStatus.queued, JobStatus.running):
            page = await asyncio.to_thread(parts.jobs.list, None, 1, status, plain, tenant=owner)
            if page.data:
                raise _in_use(f"Job {page.data[0].id} is going to add a version to {name}: cancel it, or wait for it.")
        await asyncio.to_thread(versions.delete_model, found)
        caller.did(f"deleted model {name}", owner)
        return ModelDeleted(name=called(found, caller.viewer))

    @routes.get("/{name}/versions", summary="List a model's versions", responses=problems(404, 422, 503))
    def list_versions(
        name: str,
        caller: Who,
        after: Annotated[str | None, Query(max_length=512, description="The former page's `next_cursor`.")] = None,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
    ) -> Page[ModelVersion]:
        """Newest first."""
        return Catalog(versions, caller).versions(name, after, limit)

    @routes.get("/{name}/versions/{version}", summary="Get a model version", responses=problems(404, 422, 503))
    def get_version(name: str, version: Number, caller: Who) -> ModelVersion:
        """One numbered delta and its inverted latents. It is visible only when all its files are there."""
        catalog = Catalog(versions, caller)
        return catalog.as_named(catalog.get(name, version))

    @routes.delete("/{name}/versions/{version}", summary="Delete a model version", responses=problems(403, 404, 409, 422, 503))
    async def delete_version(name: str, version: Number, caller: Who) -> ModelVersionDeleted:
        """Removes the version and its objects; its tuning job and videos stay."""
        catalog = Catalog(versions, caller)
        await asyncio.to_thread(catalog.own, name)
        found = await asyncio.to_thread(catalog.get, name, version)
        refuse_while_driven(parts, f"{found.name}/{version}", f"{name}/{version}")
        if found.aliases:
            alias = f"@{found.aliases[0]}"
            raise _in_use(f"{alias} points at {name}/{version}: point it at another version, or delete the alias first.")
        await asyncio.to_thread(versions.delete_version, found.name, version)
        caller.did(f"deleted version {name}/{version}", owner_of(found.name))
        return ModelVersionDeleted(name=called(found.name, caller.viewer), version=version)

    @routes.put(
        "/{name}/aliases/{alias}",
        summary="Set an alias",
        responses=problems(403, 404, 415, 422, 503),
        openapi_extra=json_body(AliasSet),
    )
    async def set_alias(request: Request, name: str, alias: str, caller: Who) -> Model:
        """Points at the version from the next request on, wherever it pointed before."""
        wanted = await read_json(request, AliasSet)
        model = await asyncio.to_thread(Catalog(versions, caller).set_alias, name, alias, wanted.version)
        caller.did(f"pointed alias {model.name}@{alias} at version {wanted.version}", model.tenant)
        return model

    @routes.delete("/{name}/aliases/{alias}", summary="Delete an alias", responses=problems(403, 404, 503))
    def delete_alias(name: str, alias: str, caller: Who) -> Model:
        """The version that it pointed at stays."""
        model = Catalog(versions, caller).delete_alias(name, alias)
        caller.did(f"deleted alias {model.name}@{alias}", model.tenant)
        return model

    return routes


def refuse_while_driven(parts: Parts, ref: str, shown: str) -> None:
    """See that no video of a model (`name`) or version (`name/version`) is on its way.

    Raises:
        ApiError: 409 `version_in_use`, which calls it as the caller does.
    """
    if count := parts.driver.driven(ref):
        videos = "A video" if count == 1 else f"{count} videos"
        raise _in_use(f"{videos} of {shown} will be drawn: wait until they are completed, or delete them first.")


def _in_use(detail: str) -> ApiError:
    return ApiError(409, "version_in_use", detail)
