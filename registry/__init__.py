"""The registry: jobs and videos as MLflow runs, model versions, objects in S3.

settings      where MLflow and S3 are
errors        what can go wrong
tenants       whose a model is, in MLflow's names
objects       files in and out of S3, every upload verified
tracking      MLflow's runs with our errors, paging and long tags
jobs          a tuning job is a run; the one table of statuses
metrics       a job's metrics as curves
videos        a video is a run nested under its job's
imported      a version that was not tuned here is a run of its own kind
versions      models, versions and aliases: look them up, name them, share them, delete them
registration  a version is visible only when all its objects are there
entries       the registry of models as MLflow has it, with copies and other people's entries
descriptions  what MLflow's pages say of models and versions
pictures      contact sheets by which MLflow compares runs
signature     what MLflow says of a version's inputs and outputs
pyfunc        what `mlflow.pyfunc.load_model` loads
removal       delete a job, or what has been kept long enough, with everything made of it
migration     bring what an earlier release stored into this one's form

Names are imported on first use, so that reading settings does not pay for MLflow.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from registry.errors import (
        InvalidReference,
        NotFound,
        NotReady,
        ObjectMissing,
        StorageRefused,
        StorageUnavailable,
        VersionInUse,
    )
    from registry.imported import ImportStore
    from registry.jobs import JobStore
    from registry.metrics import MetricStore
    from registry.objects import ObjectStore
    from registry.registration import VersionInfo
    from registry.settings import RegistrySettings
    from registry.versions import VersionStore
    from registry.videos import VideoStore

_HOME = {
    "ImportStore": "imported",
    "InvalidReference": "errors",
    "JobStore": "jobs",
    "MetricStore": "metrics",
    "NotFound": "errors",
    "NotReady": "errors",
    "ObjectMissing": "errors",
    "ObjectStore": "objects",
    "RegistrySettings": "settings",
    "StorageRefused": "errors",
    "StorageUnavailable": "errors",
    "VersionInUse": "errors",
    "VersionInfo": "registration",
    "VersionStore": "versions",
    "VideoStore": "videos",
}

__all__ = [
    "ImportStore",
    "InvalidReference",
    "JobStore",
    "MetricStore",
    "NotFound",
    "NotReady",
    "ObjectMissing",
    "ObjectStore",
    "RegistrySettings",
    "StorageRefused",
    "StorageUnavailable",
    "VersionInUse",
    "VersionInfo",
    "VersionStore",
    "VideoStore",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'registry' has no attribute {name!r}")
    return getattr(import_module(f"registry.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
