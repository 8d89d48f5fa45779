"""What the routes depend on, as FastAPI dependencies: objects of the application's state, and the caller of a request."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request

from registry.jobs import JobStore
from registry.metrics import MetricStore
from registry.objects import ObjectStore
from registry.versions import VersionStore
from registry.videos import VideoStore
from services.api.auth import Authenticator
from services.api.backends import Backends
from services.api.callers import Caller
from services.api.catalog import Catalog
from services.api.http.idempotency import KeyLocks
from services.api.job_maker import JobMaker
from services.api.mlflow_proxy import MlflowProxy
from services.sampling.driver import VideoDriver
from services.settings import Settings
from services.tuning.client import SchedulerClient


def set_state(app: FastAPI, backends: Backends, authenticator: Authenticator, mlflow_proxy: MlflowProxy) -> None:
    """Put what the dependencies below return into the application's state."""
    app.state.backends = backends
    app.state.authenticator = authenticator
    app.state.mlflow_proxy = mlflow_proxy
    app.state.job_maker = JobMaker(backends)
    app.state.video_locks = KeyLocks()


def _state(name: str) -> Any:
    async def get(request: Request) -> Any:
        return getattr(request.app.state, name)

    return Depends(get)


def _backend(name: str) -> Any:
    async def get(request: Request) -> Any:
        return getattr(request.app.state.backends, name)

    return Depends(get)


SettingsDep = Annotated[Settings, _backend("settings")]
ObjectStoreDep = Annotated[ObjectStore, _backend("objects")]
JobStoreDep = Annotated[JobStore, _backend("jobs")]
MetricStoreDep = Annotated[MetricStore, _backend("metrics")]
VersionStoreDep = Annotated[VersionStore, _backend("versions")]
VideoStoreDep = Annotated[VideoStore, _backend("videos")]
SchedulerDep = Annotated[SchedulerClient, _backend("scheduler")]
VideoDriverDep = Annotated[VideoDriver, _backend("driver")]
JobMakerDep = Annotated[JobMaker, _state("job_maker")]
VideoLocksDep = Annotated[KeyLocks, _state("video_locks")]
MlflowProxyDep = Annotated[MlflowProxy, _state("mlflow_proxy")]
_AuthenticatorDep = Annotated[Authenticator, _state("authenticator")]

# Coroutines, so that they run in the request's own task: its log lines know the tenant.


async def authenticate(request: Request, authenticator: _AuthenticatorDep) -> None:
    """Refuse a request without a valid key, or one too many of its tenant; see `CurrentCaller`."""
    request.state.caller = authenticator.authenticate(request)


async def authenticate_operator(request: Request, authenticator: _AuthenticatorDep) -> None:
    """Refuse a request without an operator's key."""
    authenticator.authenticate_operator(request)


async def _caller(
    request: Request,
    tenant: Annotated[
        str | None,
        Query(
            description="For operators' keys: whose things, by the tenant's name, or `*` for all tenants'.",
            max_length=64,
            json_schema_extra={"pattern": r"^(\*|[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?)$"},
        ),
    ] = None,
) -> Caller:
    caller: Caller = request.state.caller  # `authenticate` has applied `tenant` already, on every call
    return caller


CurrentCaller = Annotated[Caller, Depends(_caller)]


async def _catalog(versions: VersionStoreDep, caller: CurrentCaller) -> Catalog:
    return Catalog(versions, caller)


CatalogDep = Annotated[Catalog, Depends(_catalog)]
"""The models that the caller may see."""
