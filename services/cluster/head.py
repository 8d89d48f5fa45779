"""What runs on the head beside Ray: an MLflow server, the scheduler and the gateway. Each call restarts them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import httpx
import ray

from registry.objects import ObjectStore
from services.cluster.settings import ClusterError, HeadSettings
from services.platform import daemons, processes
from services.platform.deploy import deploy
from services.platform.errors import PartFailed
from services.platform.processes import MARK, Record
from services.runtime import NAMESPACE
from services.settings import Settings

_READY_SECONDS = 300.0
_MLFLOW_WORKERS = 2
"""Processes: one that sends a long video to a browser must not block the scheduler's writes."""


def start(head: HeadSettings, settings: Settings, say: Callable[[str], None] = lambda _: None) -> None:
    """Start MLflow, the scheduler and the gateway on the Ray that runs here, and return when the gateway is ready.

    Args:
        head: where MLflow's database is; without one, `settings` say where MLflow is.
        settings: of the services.
        say: called with a line per part.

    Raises:
        ClusterError: Ray does not run here, or a part was not ready in time; the end of its log is in the text.
    """
    try:
        ray.init(address="auto", namespace=NAMESPACE, log_to_driver=False)
    except (ConnectionError, RuntimeError) as error:
        raise ClusterError(
            f"Ray does not run here, or takes no stranger ({error}): start it first, with the settings."
        ) from error
    try:
        ObjectStore(settings).ensure_bucket()
        say(f"S3: the bucket {settings.s3_bucket} answers")
        if head.mlflow_database is not None:
            settings = _with_mlflow(head, settings, head.mlflow_database.get_secret_value())
        say(f"MLflow: ready ({settings.mlflow_tracking_uri})")
        deploy(settings)
        say(f"services: ready ({_ready_gateway(settings)})")
    except PartFailed as error:
        raise ClusterError(str(error)) from error
    finally:
        ray.shutdown()


def _with_mlflow(head: HeadSettings, settings: Settings, database: str) -> Settings:
    """Start MLflow on `database` in place of an earlier call's, and return the settings with its address."""
    address = ray.util.get_node_ip_address()
    root, mark = head.state_dir.expanduser().resolve(), f"{head.state_dir}:mlflow"
    root.mkdir(parents=True, exist_ok=True)
    root.chmod(0o700)
    pid_file, log = root / "mlflow.json", root / "mlflow.log"
    mlflow = daemons.mlflow(database, address, head.mlflow_port, settings, workers=_MLFLOW_WORKERS)
    processes.stop(Record.load(pid_file), mark, mlflow.grace_seconds, mlflow.title)
    process = processes.spawn(mlflow.command, {**os.environ, **mlflow.env, MARK: mark}, log)
    Record(process.pid, process.create_time(), head.mlflow_port, mlflow.command).save(pid_file)
    processes.wait_ready(process, mlflow.ready, _READY_SECONDS, mlflow.title, log)
    public = settings.mlflow_public_url or f"http://localhost:{head.mlflow_port}"  # where `make tunnel` forwards it
    return settings.model_copy(update={"mlflow_tracking_uri": mlflow.address, "mlflow_public_url": public})


def _ready_gateway(settings: Settings) -> str:
    """Wait until the gateway reports ready, and return its address on this machine."""
    url, last = daemons.gateway_url(settings), "nothing"
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline:
        try:  # the certificate is for another name
            response = httpx.get(f"{url}/readyz", timeout=20, trust_env=False, verify=False)
        except httpx.HTTPError as error:
            last = str(error)
        else:
            if response.status_code == 200:
                return url
            last = response.text
        time.sleep(0.5)
    raise ClusterError(f"The gateway, {url}, was not ready within {_READY_SECONDS:g} seconds. It said last: {last}")
