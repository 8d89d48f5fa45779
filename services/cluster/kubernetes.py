"""deploy/kubernetes/*.yaml and an operator's settings as manifests for `kubectl apply`."""

from __future__ import annotations

import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from services.cluster.render import CHECKOUT, environment, fill, template_values, write_private
from services.cluster.settings import OperatorSettings

_MLFLOW = "tav-mlflow"
_SET_BY_KUBERAY = (
    "RAY_AUTH_MODE",
    "RAY_AUTH_TOKEN",
    "RAY_REDIS_ADDRESS",
    "RAY_external_storage_namespace",
    "RAY_gcs_rpc_server_reconnect_timeout_s",
)
"""Variables that KubeRay itself sets in pods."""


def render(settings_file: Path, out: Path) -> Path:
    """Write `OUT/manifests.yaml`, and `OUT/secrets.yaml`, which only its owner can read.

    Args:
        settings_file: the operator's.
        out: a folder for the output alone; it is replaced.

    Returns:
        The folder.

    Raises:
        ClusterError: a setting is missing or wrong.
    """
    operator = OperatorSettings("kubernetes", settings_file)
    values = template_values(operator) | {
        "ray_version": version("ray"),
        "shm_quantity": operator.cluster.shm_size.upper() + "i",
        "idle_seconds": operator.cluster.idle_minutes * 60,
    }
    service, *_ = (fill(manifest, values) for manifest in _templates("service"))
    cluster = service["spec"]["rayClusterConfig"]
    if operator.cluster.redis is None:
        del cluster["gcsFaultToleranceOptions"]
    elif operator.cluster.redis_password is None:
        del cluster["gcsFaultToleranceOptions"]["redisPassword"]
    manifests = [service]
    if operator.cluster.mlflow_database is not None:
        manifests += [fill(manifest, values) for manifest in _templates("mlflow")]
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / "manifests.yaml").write_text(yaml.safe_dump_all(manifests, sort_keys=False, width=1000))
    gpu_types = [group["groupName"].upper() for group in cluster["workerGroupSpecs"]]
    secrets = _secrets(operator, values["k8s_namespace"], gpu_types)
    write_private(out / "secrets.yaml", yaml.safe_dump_all(secrets, sort_keys=False, width=1000))
    return out


def _secrets(operator: OperatorSettings, namespace: str, gpu_types: list[str]) -> list[dict[str, Any]]:
    variables = environment(operator, gpu_types)
    for name in _SET_BY_KUBERAY:
        variables.pop(name, None)
    if operator.cluster.mlflow_database is not None:
        variables["TAV_MLFLOW_TRACKING_URI"] = f"http://{_MLFLOW}:{operator.cluster.mlflow_port}"
    token = {"auth_token": operator.cluster.ray_token.get_secret_value()}
    return [_secret("tav-settings", namespace, variables), _secret("tav-ray-token", namespace, token)]


def _secret(name: str, namespace: str, data: dict[str, str]) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque", "stringData": data}


def _templates(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((CHECKOUT / "deploy" / "kubernetes" / f"{name}.yaml").read_text()))
