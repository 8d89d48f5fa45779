"""The gateway: the FastAPI application, and its Serve deployment.

serve.run(build(settings), name="tav", route_prefix="/")
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from fastapi import Depends, FastAPI
from fastapi_offline import FastAPIOffline
from ray import serve
from ray.serve.config import BackpressureConfig
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp

import tav
from registry.tracking import Runs
from services import logs
from services.api.auth import Doorkeeper, check_door
from services.api.deps import Parts
from services.api.haproxy import SLOTS
from services.api.http import errors, openapi
from services.api.http.cors import Cors
from services.api.http.heads import Heads
from services.api.http.middleware import Requests
from services.api.http.origins import Origins
from services.api.routes import batches, estimates, jobs, mlflow, models, operations, uploads, videos
from services.api.routes.mlflow import MlflowDoor
from services.runtime import HEAD
from services.sampling.client import ServeSampler
from services.settings import Settings
from services.tuning.client import RayScheduler

_REQUESTS_AT_A_TIME = sum(SLOTS.values())


def create_app(parts: Parts, behind_serve: bool = False) -> FastAPI:
    """The HTTP interface over given parts."""
    door, mlflow_door = Doorkeeper(parts.settings), MlflowDoor(parts.settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await door.look()
        tasks = [asyncio.create_task(parts.driver.resume()), asyncio.create_task(door.watch())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
            await parts.driver.close()
            await mlflow_door.close()

    app = FastAPIOffline(
        title="tav",
        summary="One-shot video tuning as a service",
        description=openapi.DESCRIPTION,
        version=tav.__version__,
        openapi_tags=openapi.TAGS,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        lifespan=lifespan,
        redoc_url=None,
        static_url="/docs/files",
        generate_unique_id_function=openapi.operation_id,
        redirect_slashes=False,
        middleware=[
            Middleware(Requests, body_seconds=parts.settings.request_seconds, behind_serve=behind_serve),
            Middleware(Heads),
            Middleware(Cors, origins=parts.settings.cors_origins),
            Middleware(Origins, trusted=parts.settings.cors_origins),
            Middleware(GZipMiddleware, minimum_size=1000, compresslevel=6),
        ],
    )
    guard = [Depends(door.check)]
    for module in (jobs, estimates, batches, uploads, models, videos):
        app.include_router(
            module.router(parts), prefix="/v1", dependencies=guard, responses=openapi.problems(401, 403, 429, 500, 503)
        )
    app.include_router(operations.router(parts))
    app.include_router(mlflow.router(mlflow_door, door, Runs(parts.settings, "tuning", "job")))
    errors.install(app)
    openapi.install(app, keys=parts.settings.api_keys_file is not None)
    return app


@serve.ingress()
class Gateway:
    """The Serve ingress: the application over the real scheduler and the samplers, by base."""

    def __init__(self, settings: Settings, samplers: dict[str, Any]) -> None:
        logs.start()
        self._parts = Parts.make(settings, RayScheduler(), ServeSampler(samplers))

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """Made in the replica: the application holds clients that do not travel."""
        return create_app(self._parts, behind_serve=True)


def build(settings: Settings) -> serve.Application:
    """The gateway and every base's samplers as one Serve application. Ray must be initialised.

    Raises:
        InvalidConfig: it would listen to others than this machine without keys.
    """
    from services.sampling.deployment import build_samplers  # brings torch, which the gateway's process does without

    check_door(settings)
    gateway = serve.deployment(
        Gateway,
        name="Gateway",
        num_replicas=1,
        ray_actor_options={"num_cpus": 0, "resources": HEAD},
        max_ongoing_requests=_REQUESTS_AT_A_TIME,
        max_queued_requests=_REQUESTS_AT_A_TIME,
        backpressure_config=BackpressureConfig(retry_after_s=errors.RETRY_SECONDS),
        graceful_shutdown_timeout_s=5.0,
    )
    return gateway.bind(settings, build_samplers(settings))
