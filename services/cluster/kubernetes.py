"""From deploy/kubernetes/*.yaml and an operator's settings to what `kubectl apply` takes."""

from __future__ import annotations

import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from services.cluster.render import CHECKOUT, environment, fill, plain, write_private
from services.cluster.settings import Filling

_MLFLOW = "tav-mlflow"
_KUBERAYS_OWN = (
    "RAY_AUTH_MODE",
    "RAY_AUTH_TOKEN",
    "RAY_REDIS_ADDRESS",
    "RAY_external_storage_namespace",
    "RAY_gcs_rpc_server_reconnect_timeout_s",
)
"""The operator puts these into pods itself."""


def render(settings: Path, out: Path) -> Path:
    """Write `OUT/manifests.yaml`, and `OUT/secrets.yaml` for its owner alone.

    Args:
        settings: The operator's file.
        out: A folder of this program's own; it is replaced.

    Returns:
        The folder.

    Raises:
        ClusterError: a setting is missing or wrong.
    """
    filling = Filling("kubernetes", settings)
    values = plain(filling) | {
        "ray_version": version("ray"),
        "shm_quantity": filling.cluster.shm_size.upper() + "i",
        "idle_seconds": filling.cluster.idle_minutes * 60,
    }
    service, *_ = (fill(manifest, values) for manifest in _templates("service"))
    cluster = service["spec"]["rayClusterConfig"]
    if filling.cluster.redis is None:
        del cluster["gcsFaultToleranceOptions"]
    elif filling.cluster.redis_password is None:
        del cluster["gcsFaultToleranceOptions"]["redisPassword"]
    manifests = [service]
    if filling.cluster.mlflow_database is not None:
        manifests += [fill(manifest, values) for manifest in _templates("mlflow")]
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / "manifests.yaml").write_text(yaml.safe_dump_all(manifests, sort_keys=False, width=1000))
    secrets = _secrets(filling, values["k8s_namespace"], [group["groupName"].upper() for group in cluster["workerGroupSpecs"]])
    write_private(out / "secrets.yaml", yaml.safe_dump_all(secrets, sort_keys=False, width=1000))
    return out


def _secrets(filling: Filling, namespace: str, gpu_types: list[str]) -> list[dict[str, Any]]:
    made = environment(filling, gpu_types)
    for name in _KUBERAYS_OWN:
        made.pop(name, None)
    if filling.cluster.mlflow_database is not None:
        made["TAV_MLFLOW_TRACKING_URI"] = f"http://{_MLFLOW}:{filling.cluster.mlflow_port}"
    token = {"auth_token": filling.cluster.ray_token.get_secret_value()}
    return [_secret("tav-settings", namespace, made), _secret("tav-ray-token", namespace, token)]


def _secret(name: str, namespace: str, data: dict[str, str]) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque", "stringData": data}


def _templates(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((CHECKOUT / "deploy" / "kubernetes" / f"{name}.yaml").read_text()))
