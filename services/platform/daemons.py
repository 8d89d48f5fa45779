"""The command of each daemon, its environment, and when it is ready."""

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
from services.platform.data_dir import Credentials
from services.platform.errors import PlatformError
from services.platform.ports import answers, any_free
from services.platform.settings import LOOPBACK, PlatformSettings
from services.runtime import ENVIRONMENT
from services.settings import Settings

_SQLITE = "sqlite:///"
_DRAIN_SECONDS = 3.0
"""How long a Ray node that is told to end gives its tuners to write a checkpoint."""

TITLES = {"s3": "the S3 server", "mlflow": "the MLflow server", "ray": "the Ray head", "services": "the gateway"}
"""What each part is called in sentences."""
GRACE_SECONDS = {"s3": 10.0, "mlflow": 10.0, "ray": _DRAIN_SECONDS + 17.0, "services": 10.0}
"""How long each part gets to end by itself."""


@dataclass(frozen=True)
class Daemon:
    """A process to start, and how to see that it does its work."""

    name: str
    address: str
    command: list[str]
    env: dict[str, str] = field(repr=False)
    ready: Callable[[], bool] = field(repr=False)
    prepare: Callable[[], None] = field(default=lambda: None, repr=False)
    """Called before it is started."""

    @property
    def title(self) -> str:
        """What it is called in sentences."""
        return TITLES[self.name]

    @property
    def grace_seconds(self) -> float:
        """How long it gets to end by itself."""
        return GRACE_SECONDS[self.name]


def s3(root: Path, port: int, keys: Credentials, settings: RegistrySettings, host: str = LOOPBACK) -> Daemon:
    """Return rclone's S3 server, which keeps objects as plain files below `root`."""
    folder = root / "s3"

    def ready() -> bool:
        if not answers(port, host):
            return False
        try:
            ObjectStore(settings).ensure_bucket()
        except StorageUnavailable:
            return False
        return True

    return Daemon(
        name="s3",
        address=f"http://{host}:{port}",
        command=[tool("rclone"), "serve", "s3", "--config", "", "--addr", f"{host}:{port}", str(folder)],
        env={"RCLONE_AUTH_KEY": f'"{keys.access_key_id},{keys.secret_access_key}"'},
        ready=ready,
    )


def mlflow(database: str, host: str, port: int, settings: RegistrySettings, workers: int = 1) -> Daemon:
    """Return an MLflow server. It reads artifacts from S3 to show them; clients write theirs to S3 directly.

    Args:
        database: SQLAlchemy's address of its database.
        host: how others reach this machine. MLflow answers to `localhost` as well, at any port, for tunnels.
        port: where it listens: on loopback if that is the host, otherwise on every interface.
        settings: say where S3 is.
        workers: number of processes.
    """

    def prepare() -> None:
        if database.startswith(_SQLITE):
            with closing(sqlite3.connect(database.removeprefix(_SQLITE))) as connection:
                connection.execute(
                    "PRAGMA journal_mode=WAL"
                )  # stays in the file: one fsync a commit, and readers do not block writers

    return Daemon(
        name="mlflow",
        address=f"http://{host}:{port}",
        command=[
            *[sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", str(workers)],
            *["--host", LOOPBACK if host == LOOPBACK else "0.0.0.0"],
            *["--allowed-hosts", ",".join(f"{name}:*" for name in dict.fromkeys([host, LOOPBACK, "localhost"]))],
            *["--default-artifact-root", f"s3://{settings.s3_bucket}/mlflow", "--no-serve-artifacts"],
        ],
        env={
            **s3_environment(settings),
            "MLFLOW_BACKEND_STORE_URI": database,  # arguments are public, and it may hold a password
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        },
        ready=lambda: http_ok(f"http://{host}:{port}/health"),
        prepare=prepare,
    )


def mlflow_gc(database: str, url: str, settings: RegistrySettings) -> tuple[list[str], dict[str, str]]:
    """Return the command, and its environment, that removes the rows of what was deleted in MLflow."""
    # `mlflow gc` takes the database as an argument, and arguments are public; click can read it from a variable instead.
    command = [sys.executable, "-c", "from mlflow.cli import gc; gc(auto_envvar_prefix='MLFLOW_GC')"]
    server = {"MLFLOW_GC_BACKEND_STORE_URI": database, "MLFLOW_TRACKING_URI": url}
    return command, {**s3_environment(settings), **server, "MLFLOW_DISABLE_TELEMETRY": "true"}


def ray(settings: PlatformSettings, temp: Path, port: int, environment: dict[str, str], log: Path) -> Daemon:
    """Return the Ray head. Its workers inherit its environment, and with it the services' settings.

    Args:
        settings: Ray's processors and shared memory.
        temp: Ray's folder.
        port: where the head listens.
        environment: must ask for token authentication, because other users of the machine reach Ray's ports.
        log: where its output goes.
    """

    def ready() -> bool:
        return answers(port, LOOPBACK) and "Ray runtime started" in log.read_text(errors="replace")

    return Daemon(
        name="ray",
        address=f"{LOOPBACK}:{port}",
        command=[
            *[tool("ray"), "start", "--head", "--block", "--disable-usage-stats"],
            # Ray Train asks the dashboard about actors before it frees a dead tuner's resources.
            *["--include-dashboard=true", f"--dashboard-host={LOOPBACK}", f"--dashboard-port={any_free(LOOPBACK)}"],
            *[f"--node-ip-address={LOOPBACK}", f"--port={port}", f"--temp-dir={temp}"],
            *["--min-worker-port=0", "--max-worker-port=0", f"--ray-client-server-port={any_free(LOOPBACK)}"],
            *[f"--dashboard-agent-listen-port={any_free(LOOPBACK)}"],
            *[f"--object-store-memory={settings.ray_object_store_bytes}"],
            *([f"--num-cpus={settings.ray_cpus}"] if settings.ray_cpus else []),
        ],
        env={
            **_for_services(environment),
            # fixed by default, and then Prometheus would read those of another stack
            "AUTOSCALER_METRIC_PORT": str(any_free(LOOPBACK)),
            "DASHBOARD_METRIC_PORT": str(any_free(LOOPBACK)),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": str(_DRAIN_SECONDS),
        },
        ready=ready,
    )


def deployment(environment: dict[str, str]) -> tuple[list[str], dict[str, str]]:
    """Return the command, and its environment, that deploys the services onto Ray and ends."""
    return [sys.executable, "-m", "services.platform.deploy"], _for_services(environment)


def _for_services(environment: dict[str, str]) -> dict[str, str]:
    return {**environment, "PYTHONPATH": python_path(environment.get("PYTHONPATH", "")), **ENVIRONMENT}


def s3_environment(settings: RegistrySettings) -> dict[str, str]:
    """Return S3's address and keys as boto3 and MLflow read them; without keys they use the machine's own rights."""
    secret = settings.s3_secret_access_key
    variables = {
        "MLFLOW_S3_ENDPOINT_URL": settings.s3_endpoint_url,
        "AWS_ENDPOINT_URL_S3": settings.s3_endpoint_url,
        "AWS_ACCESS_KEY_ID": settings.s3_access_key_id,
        "AWS_SECRET_ACCESS_KEY": secret.get_secret_value() if secret else None,
        "AWS_DEFAULT_REGION": settings.s3_region,
    }
    return {name: value for name, value in variables.items() if value}


def http_ok(url: str) -> bool:
    """Return whether a GET answers 200. The certificate is not checked: it is for another name, and nothing secret is sent."""
    try:
        return httpx.get(url, timeout=5, trust_env=False, verify=False).status_code == 200
    except httpx.HTTPError:
        return False


def gateway_url(settings: Settings) -> str:
    """Return the gateway's address as processes of its machine reach it."""
    host = LOOPBACK if settings.host in ("0.0.0.0", "::") else settings.host
    return f"{'https' if settings.tls_certfile else 'http'}://{host}:{settings.port}"


def python_path(path: str) -> str:
    """Return `path`, a PYTHONPATH, with the folders of this project's packages before it."""
    folders = []
    for package in ("services", "registry", "tav", "tav_client"):
        spec = find_spec(package)
        for location in (spec.submodule_search_locations or []) if spec else []:
            folders.append(str(Path(location).resolve().parent))
    return ":".join(dict.fromkeys([*folders, *filter(None, path.split(":"))]))


def tool(name: str) -> str:
    """Return the path of a program: beside the running Python, otherwise on PATH.

    Raises:
        PlatformError: it is not installed.
    """
    beside = Path(sys.executable).parent / name
    path = str(beside) if beside.exists() else shutil.which(name)
    if path is None:
        raise PlatformError(f"The program {name!r} is not installed. Run `make setup`, or pip install 'tav[service]'.")
    return path
