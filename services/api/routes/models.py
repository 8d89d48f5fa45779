"""/v1/models."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request

from registry.tenants import called, owner_of
from services.api.deps import CatalogDep, CurrentCaller, JobStoreDep, VersionStoreDep, VideoDriverDep
from services.api.http.bodies import read_json
from services.api.http.errors import ApiError
from services.api.http.openapi import json_body, problems
from services.sampling.driver import VideoDriver
from tav_client.schemas import AliasSet, JobStatus, Model, ModelDeleted, ModelUpdate, ModelVersion, ModelVersionDeleted, Page

router = APIRouter(prefix="/models", tags=["models"])

VersionNumber = Annotated[int, Path(ge=1, le=999_999_999)]


@router.get("", summary="List models", responses=problems(422, 503))
def list_models(
    catalog: CatalogDep,
    after: Annotated[str | None, Query(max_length=2048, description="The former page's `next_cursor`.")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    shared: Annotated[bool, Query(description="Instead, those that any tenant shares with all.")] = False,
) -> Page[Model]:
    """Your models that have a version, last changed first."""
    return catalog.list(after, limit, shared)


@router.get("/{name}", summary="Get a model", responses=problems(404, 503))
def get_model(name: str, catalog: CatalogDep) -> Model:
    """A model with its aliases."""
    return catalog.get_model(name)


@router.patch(
    "/{name}", summary="Share a model", responses=problems(403, 404, 415, 422, 503), openapi_extra=json_body(ModelUpdate)
)
async def share_model(request: Request, name: str, catalog: CatalogDep, caller: CurrentCaller) -> Model:
    """Shared, other tenants may look at it and sample it, as `TENANT~NAME`; its owner alone may change it."""
    update = await read_json(request, ModelUpdate)
    model = await asyncio.to_thread(catalog.share, name, update.shared)
    caller.audit(f"{'shared' if model.shared else 'stopped sharing'} model {model.name}", model.tenant)
    return model


@router.delete("/{name}", summary="Delete a model", responses=problems(403, 404, 409, 503))
async def delete_model(
    name: str,
    catalog: CatalogDep,
    versions: VersionStoreDep,
    jobs: JobStoreDep,
    driver: VideoDriverDep,
    caller: CurrentCaller,
) -> ModelDeleted:
    """Removes all its versions, their objects and its aliases; its tuning jobs and videos stay."""
    model = await asyncio.to_thread(catalog.writable, name)
    await asyncio.to_thread(catalog.get_model, name)
    refuse_in_use(driver, model, name)
    owner = owner_of(model)
    for status in (JobStatus.queued, JobStatus.running):
        page = await asyncio.to_thread(jobs.list, None, 1, status, called(model, owner), tenant=owner)
        if page.data:
            raise _in_use(f"Job {page.data[0].id} is going to add a version to {name}: cancel it, or wait for it.")
    await asyncio.to_thread(versions.delete_model, model)
    caller.audit(f"deleted model {name}", owner)
    return ModelDeleted(name=called(model, caller.viewer))


@router.get("/{name}/versions", summary="List a model's versions", responses=problems(404, 422, 503))
def list_versions(
    name: str,
    catalog: CatalogDep,
    after: Annotated[str | None, Query(max_length=512, description="The former page's `next_cursor`.")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> Page[ModelVersion]:
    """Newest first."""
    return catalog.list_versions(name, after, limit)


@router.get("/{name}/versions/{version}", summary="Get a model version", responses=problems(404, 422, 503))
def get_version(name: str, version: VersionNumber, catalog: CatalogDep) -> ModelVersion:
    """One numbered delta and its inverted latents. It is visible only when all its files are there."""
    return catalog.shown(catalog.get_version(name, version))


@router.delete("/{name}/versions/{version}", summary="Delete a model version", responses=problems(403, 404, 409, 422, 503))
async def delete_version(
    name: str,
    version: VersionNumber,
    catalog: CatalogDep,
    versions: VersionStoreDep,
    driver: VideoDriverDep,
    caller: CurrentCaller,
) -> ModelVersionDeleted:
    """Removes the version and its objects; its tuning job and videos stay."""
    await asyncio.to_thread(catalog.writable, name)
    entry = await asyncio.to_thread(catalog.get_version, name, version)
    refuse_in_use(driver, f"{entry.name}/{version}", f"{name}/{version}")
    if entry.aliases:
        alias = f"@{entry.aliases[0]}"
        raise _in_use(f"{alias} points at {name}/{version}: point it at another version, or delete the alias first.")
    await asyncio.to_thread(versions.delete_version, entry.name, version)
    caller.audit(f"deleted version {name}/{version}", owner_of(entry.name))
    return ModelVersionDeleted(name=called(entry.name, caller.viewer), version=version)


@router.put(
    "/{name}/aliases/{alias}",
    summary="Set an alias",
    responses=problems(403, 404, 415, 422, 503),
    openapi_extra=json_body(AliasSet),
)
async def set_alias(request: Request, name: str, alias: str, catalog: CatalogDep, caller: CurrentCaller) -> Model:
    """Points at the version from the next request on, wherever it pointed before."""
    target = await read_json(request, AliasSet)
    model = await asyncio.to_thread(catalog.set_alias, name, alias, target.version)
    caller.audit(f"pointed alias {model.name}@{alias} at version {target.version}", model.tenant)
    return model


@router.delete("/{name}/aliases/{alias}", summary="Delete an alias", responses=problems(403, 404, 503))
def delete_alias(name: str, alias: str, catalog: CatalogDep, caller: CurrentCaller) -> Model:
    """The version that it pointed at stays."""
    model = catalog.delete_alias(name, alias)
    caller.audit(f"deleted alias {model.name}@{alias}", model.tenant)
    return model


def refuse_in_use(driver: VideoDriver, ref: str, shown: str) -> None:
    """Refuse to remove a model (`name`) or version (`name/version`) of which videos are being sampled.

    Args:
        driver: knows the videos.
        ref: by the registered name.
        shown: the same by the caller's name.

    Raises:
        ApiError: 409 `version_in_use`.
    """
    if count := driver.count_open(ref):
        videos = "A video" if count == 1 else f"{count} videos"
        raise _in_use(f"{videos} of {shown} will be drawn: wait until they are completed, or delete them first.")


def _in_use(detail: str) -> ApiError:
    return ApiError(409, "version_in_use", detail)
