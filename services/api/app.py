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
from services import logs
from services.api.auth import Authenticator
from services.api.backends import Backends
from services.api.deps import authenticate, set_state
from services.api.exposure import check_credentials
from services.api.haproxy import SLOTS
from services.api.http import errors, openapi
from services.api.http.middleware import CorsMiddleware, CrossOriginMiddleware, HeadMiddleware, RequestMiddleware
from services.api.mlflow_proxy import MlflowProxy
from services.api.routes import bases, batches, estimates, jobs, mlflow, models, operations, uploads, videos
from services.runtime import HEAD
from services.sampling.client import ServeSampler
from services.settings import Settings
from services.tuning.client import SchedulerClient

_MAX_REQUESTS = sum(SLOTS.values())


def create_app(backends: Backends, behind_serve: bool = False) -> FastAPI:
    """Create the HTTP interface.

    Args:
        backends: what it works with.
        behind_serve: whether Ray Serve's proxy is in front, which adds request ids itself.
    """
    settings = backends.settings
    authenticator, mlflow_proxy = Authenticator(settings), MlflowProxy(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await authenticator.refresh()
        tasks = [asyncio.create_task(backends.driver.resume()), asyncio.create_task(authenticator.watch())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
            await backends.driver.close()
            await mlflow_proxy.close()

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
            Middleware(RequestMiddleware, body_seconds=settings.request_seconds, behind_serve=behind_serve),
            Middleware(HeadMiddleware),
            Middleware(CorsMiddleware, origins=settings.cors_origins),
            Middleware(CrossOriginMiddleware, trusted=settings.cors_origins),
            Middleware(GZipMiddleware, minimum_size=1000, compresslevel=6),
        ],
    )
    set_state(app, backends, authenticator, mlflow_proxy)
    common = openapi.problems(401, 403, 429, 500, 503)
    for module in (bases, jobs, estimates, batches, uploads, models, videos):
        app.include_router(module.router, prefix="/v1", dependencies=[Depends(authenticate)], responses=common)
    app.include_router(operations.router)
    app.include_router(mlflow.router)
    errors.install(app)
    openapi.install(app, keys=settings.api_keys_file is not None)
    return app


@serve.ingress()
class Gateway:
    """The Serve ingress: the application over the real scheduler and the samplers, by base."""

    def __init__(self, settings: Settings, samplers: dict[str, Any]) -> None:
        logs.start()
        self._backends = Backends.create(settings, SchedulerClient(), ServeSampler(samplers))

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """Create the application in the replica: it holds clients that cannot be pickled."""
        return create_app(self._backends, behind_serve=True)


def build(settings: Settings) -> serve.Application:
    """Build the gateway and every base's samplers as one Serve application. Ray must be initialised.

    Raises:
        InvalidConfig: it would listen beyond this machine without keys.
    """
    from services.sampling.deployment import build_samplers  # imports torch, which the gateway's process does without

    check_credentials(settings)
    gateway = serve.deployment(
        Gateway,
        name="Gateway",
        num_replicas=1,
        ray_actor_options={"num_cpus": 0, "resources": HEAD},
        max_ongoing_requests=_MAX_REQUESTS,
        max_queued_requests=_MAX_REQUESTS,
        backpressure_config=BackpressureConfig(retry_after_s=errors.RETRY_SECONDS),
        graceful_shutdown_timeout_s=5.0,
    )
    return gateway.bind(settings, build_samplers(settings))
