"""/v1/models."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request

from services.api.bodies import read_json
from services.api.errors import ApiError
from services.api.openapi import json_body, problems
from services.api.parts import Parts
from tav_client.schemas import AliasSet, JobStatus, Model, ModelDeleted, ModelVersion, ModelVersionDeleted, Page

Number = Annotated[int, Path(ge=1, le=999_999_999)]


def router(parts: Parts) -> APIRouter:
    """The calls on models."""
    routes = APIRouter(prefix="/models", tags=["models"])
    versions = parts.versions

    @routes.get("", summary="List models", responses=problems(422, 503))
    def list_models(
        after: Annotated[str | None, Query(max_length=2048, description="The former page's `next_cursor`.")] = None,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
    ) -> Page[Model]:
        """Models that have a version, last changed first."""
        return versions.list_models(after, limit)

    @routes.get("/{name}", summary="Get a model", responses=problems(404, 503))
    def get(name: str) -> Model:
        """A model with its aliases."""
        return versions.get_model(name)

    @routes.delete("/{name}", summary="Delete a model", responses=problems(404, 409, 503))
    async def delete(name: str) -> ModelDeleted:
        """Removes all its versions, their objects and its aliases; its tuning jobs and videos stay."""
        await asyncio.to_thread(versions.get_model, name)
        _refuse_while_driven(parts, name)
        for status in (JobStatus.queued, JobStatus.running):
            if open_jobs := (await asyncio.to_thread(parts.jobs.list, None, 1, status, name)).data:
                raise _in_use(f"Job {open_jobs[0].id} is going to add a version to {name}: cancel it, or wait for it.")
        await asyncio.to_thread(versions.delete_model, name)
        return ModelDeleted(name=name)

    @routes.get("/{name}/versions/{version}", summary="Get a model version", responses=problems(404, 422, 503))
    def get_version(name: str, version: Number) -> ModelVersion:
        """One numbered delta and its inverted latents. It is visible only when all its files are there."""
        return versions.get(name, version)

    @routes.delete("/{name}/versions/{version}", summary="Delete a model version", responses=problems(404, 409, 422, 503))
    async def delete_version(name: str, version: Number) -> ModelVersionDeleted:
        """Removes the version and its objects; its tuning job and videos stay."""
        found = await asyncio.to_thread(versions.get, name, version)
        _refuse_while_driven(parts, f"{name}/{version}")
        if found.aliases:
            alias = f"@{found.aliases[0]}"
            raise _in_use(f"{alias} points at {name}/{version}: point it at another version, or delete the alias first.")
        await asyncio.to_thread(versions.delete_version, name, version)
        return ModelVersionDeleted(name=name, version=version)

    @routes.put(
        "/{name}/aliases/{alias}",
        summary="Set an alias",
        responses=problems(404, 415, 422, 503),
        openapi_extra=json_body(AliasSet),
    )
    async def set_alias(request: Request, name: str, alias: str) -> Model:
        """Points at the version from the next request on, wherever it pointed before."""
        wanted = await read_json(request, AliasSet)
        await asyncio.to_thread(versions.set_alias, name, alias, wanted.version)
        return await asyncio.to_thread(versions.get_model, name)

    @routes.delete("/{name}/aliases/{alias}", summary="Delete an alias", responses=problems(404, 503))
    def delete_alias(name: str, alias: str) -> Model:
        """The version that it pointed at stays."""
        versions.delete_alias(name, alias)
        return versions.get_model(name)

    return routes


def _refuse_while_driven(parts: Parts, ref: str) -> None:
    if count := parts.driver.driven(ref):
        videos = "A video" if count == 1 else f"{count} videos"
        raise _in_use(f"{videos} of {ref} will be drawn: wait until they are completed, or delete them first.")


def _in_use(detail: str) -> ApiError:
    return ApiError(409, "version_in_use", detail)
