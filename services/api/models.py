"""/v1/models."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query

from services.api.openapi import problems
from services.api.parts import Parts
from tav_client.schemas import Model, ModelVersion, Page


def router(parts: Parts) -> APIRouter:
    """The calls on models; plain functions, which run in threads."""
    routes = APIRouter(prefix="/models", tags=["models"])

    @routes.get("", summary="List models", responses=problems(422, 503))
    def list_models(
        after: Annotated[str | None, Query(max_length=2048, description="The former page's `next_cursor`.")] = None,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
    ) -> Page[Model]:
        """Models that have a version, last changed first."""
        return parts.versions.list_models(after, limit)

    @routes.get("/{name}", summary="Get a model", responses=problems(404, 503))
    def get(name: str) -> Model:
        """A model with its aliases."""
        return parts.versions.get_model(name)

    @routes.get("/{name}/versions/{version}", summary="Get a model version", responses=problems(404, 422, 503))
    def get_version(name: str, version: Annotated[int, Path(ge=1, le=999_999_999)]) -> ModelVersion:
        """One numbered delta and its inverted latents. It is visible only when all its files are there."""
        return parts.versions.get(name, version)

    return routes
