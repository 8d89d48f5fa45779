"""The manifests against what reads them: Kubernetes' schemas, Ray's autoscaler for KubeRay, Serve's configuration."""

from __future__ import annotations

import stat
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import ray
import yaml
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from ray.serve.schema import ServeDeploySchema

from services.cluster.kubernetes import render
from services.cluster.serve import application, haproxy
from services.cluster.settings import ClusterError
from services.platform import Stack
from services.runtime import NAMESPACE, SCHEDULER
from services.settings import Settings
from tests.deploy.operator_file import EVERYWHERE, write_settings

# Fields of KubeRay 1.7's ray.io/v1, as its API reference lists them, of those objects that the manifest has. (KubeRay's own
# schema is in no package registry.)
RAY_SERVICE = {
    "excludeHeadPodFromServeSvc",
    "rayClusterConfig",
    "rayClusterDeletionDelaySeconds",
    "serveConfigV2",
    "serveService",
}
RAY_SERVICE |= {"suspend", "upgradeStrategy", "serviceUnhealthySecondThreshold", "deploymentUnhealthySecondThreshold"}
RAY_CLUSTER = {"authOptions", "autoscalerOptions", "enableInTreeAutoscaling", "gcsFaultToleranceOptions", "headGroupSpec"}
RAY_CLUSTER |= {"headServiceAnnotations", "managedBy", "rayVersion", "suspend", "upgradeStrategy", "workerGroupSpecs"}
HEAD = {"enableIngress", "headService", "labels", "rayStartParams", "resources", "serviceType", "template"}
WORKERS = {
    "groupName",
    "idleTimeoutSeconds",
    "labels",
    "maxReplicas",
    "minReplicas",
    "numOfHosts",
    "rayStartParams",
    "replicas",
}
WORKERS |= {"resources", "scaleStrategy", "suspend", "template"}
WITHIN = {
    "authOptions": {"enableK8sTokenAuth", "mode", "secretName"},
    "gcsFaultToleranceOptions": {"externalStorageNamespace", "redisAddress", "redisPassword", "redisUsername"},
    "autoscalerOptions": {"env", "envFrom", "idleTimeoutSeconds", "image", "imagePullPolicy", "resources", "securityContext"}
    | {"upscalingMode", "version", "volumeMounts"},
}


@pytest.fixture
def manifests(tmp_path: Path) -> dict[str, Any]:
    """By kind, with everything that can be chosen."""
    settings = write_settings("kubernetes", tmp_path, TAV_CLUSTER_REDIS="redis:6379", TAV_CLUSTER_REDIS_PASSWORD="r")
    return read(render(settings, tmp_path / "out"))


def read(folder: Path) -> dict[str, Any]:
    texts = [(folder / name).read_text() for name in ("manifests.yaml", "secrets.yaml")]
    documents = [manifest for text in texts for manifest in yaml.safe_load_all(text)]
    return {
        f"{manifest['kind']}/{manifest['metadata']['name']}" if manifest["kind"] == "Secret" else manifest["kind"]: manifest
        for manifest in documents
    }


def pods(manifests: dict[str, Any]) -> Iterator[dict[str, Any]]:
    cluster = manifests["RayService"]["spec"]["rayClusterConfig"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        yield {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"} | group["template"]["metadata"]} | {
            "spec": group["template"]["spec"]
        }


def test_kubernetes_takes_every_object_and_every_pod(manifests: dict[str, Any]) -> None:
    plain = [manifest for kind, manifest in manifests.items() if kind != "RayService"]
    assert {manifest["kind"] for manifest in plain} == {"Deployment", "Service", "NetworkPolicy", "Secret"}
    for manifest in [*plain, *pods(manifests)]:
        kubernetes_validate.validate(manifest, "1.34", strict=True)
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifests["Service"] | {"speck": {}}, "1.34", strict=True)


def test_kuberay_knows_every_field(manifests: dict[str, Any]) -> None:
    spec = manifests["RayService"]["spec"]
    cluster = spec["rayClusterConfig"]
    assert set(spec) <= RAY_SERVICE and set(cluster) <= RAY_CLUSTER and set(cluster["headGroupSpec"]) <= HEAD
    assert all(set(group) <= WORKERS for group in cluster["workerGroupSpecs"])
    assert all(set(cluster[name]) <= fields for name, fields in WITHIN.items())
    assert isinstance(cluster["autoscalerOptions"]["idleTimeoutSeconds"], int)
    assert all(isinstance(value, str) for group in cluster["workerGroupSpecs"] for value in group["rayStartParams"].values())
    assert cluster["rayVersion"] == ray.__version__
    assert spec["upgradeStrategy"] == {"type": "None"}, "two clusters would have two schedulers"


def test_rays_autoscaler_reads_gpu_pods_from_zero_out_of_it(manifests: dict[str, Any]) -> None:
    service = manifests["RayService"]
    config = _derive_autoscaling_config_from_ray_cr(
        {"metadata": {"name": "tav", "namespace": "tav"}, "spec": service["spec"]["rayClusterConfig"]}
    )
    kinds = config["available_node_types"]
    assert "GPU" not in kinds["headgroup"]["resources"]
    for name, gpu in (("l4", "L4"), ("a100", "A100")):
        assert (kinds[name]["min_workers"], kinds[name]["max_workers"]) == (0, 4)
        assert kinds[name]["resources"]["GPU"] == 1 and kinds[name]["resources"][f"accelerator_type:{gpu}"] == 1
    assert config["idle_timeout_minutes"] == 10


def test_no_pod_is_root_and_none_may_become_it(manifests: dict[str, Any]) -> None:
    specs = [pod["spec"] for pod in pods(manifests)] + [manifests["Deployment"]["spec"]["template"]["spec"]]
    for spec in specs:
        assert spec["securityContext"]["runAsNonRoot"] is True and spec["securityContext"]["runAsUser"] == 1000
        for container in [*spec["containers"], *spec.get("initContainers", [])]:
            assert container["image"] == "registry.internal/tav:0.2.0"
            assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def test_secrets_are_in_secrets_alone(manifests: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert stat.S_IMODE((out / "secrets.yaml").stat().st_mode) == 0o600
    settings = manifests["Secret/tav-settings"]["stringData"]
    assert settings["TAV_CLUSTER_MLFLOW_DATABASE"] == EVERYWHERE["TAV_CLUSTER_MLFLOW_DATABASE"]
    assert (settings["TAV_MLFLOW_TRACKING_URI"], settings["TAV_GPU_TYPES"]) == ("http://tav-mlflow:5000", '["L4", "A100"]')
    assert manifests["Secret/tav-ray-token"]["stringData"] == {"auth_token": EVERYWHERE["TAV_CLUSTER_RAY_TOKEN"]}
    text = (out / "manifests.yaml").read_text()
    assert "ecret'" not in text and EVERYWHERE["TAV_CLUSTER_RAY_TOKEN"] not in text


def test_what_is_not_set_is_left_out(tmp_path: Path) -> None:
    away = {"TAV_CLUSTER_MLFLOW_DATABASE": None, "TAV_MLFLOW_TRACKING_URI": "https://mlflow.internal"}
    manifests = read(render(write_settings("kubernetes", tmp_path, **away), tmp_path / "out"))
    assert set(manifests) == {"RayService", "Secret/tav-settings", "Secret/tav-ray-token"}
    assert "gcsFaultToleranceOptions" not in manifests["RayService"]["spec"]["rayClusterConfig"]
    assert manifests["Secret/tav-settings"]["stringData"]["TAV_MLFLOW_TRACKING_URI"] == "https://mlflow.internal"


def test_a_gateway_that_no_pod_could_reach_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=r"set TAV_HOST to 0\.0\.0\.0, and TAV_API_KEYS_FILE"):
        render(write_settings("kubernetes", tmp_path, TAV_HOST="127.0.0.1"), tmp_path / "out")
    https = {"TAV_TLS_CERTFILE": "/tls.crt", "TAV_TLS_KEYFILE": "/tls.key"}
    with pytest.raises(ClusterError, match="an Ingress speaks HTTPS"):
        render(write_settings("kubernetes", tmp_path, **https), tmp_path / "out")


@pytest.mark.slow
def test_serve_finds_the_application_that_the_manifest_names(
    cluster: Stack, manifests: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ServeDeploySchema.model_validate(yaml.safe_load(manifests["RayService"]["spec"]["serveConfigV2"]))
    named = {each.name: each for each in config.applications}
    assert named["tav"].import_path == f"{application.__module__}:{application.__name__}"
    assert named["haproxy"].import_path == f"{haproxy.__module__}:{haproxy.__name__}" and named["haproxy"].route_prefix is None
    assert config.http_options.host == "127.0.0.1" and config.http_options.port == Settings().serve_port
    settings = cluster.settings().model_copy(update={"experiment": f"serve-{uuid.uuid4().hex[:8]}", "work_dir": tmp_path})
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    gateway = application({})
    try:
        assert gateway._bound_deployment.name == "Gateway"
        assert haproxy({})._bound_deployment.name == "HAProxy"
        first = ray.get_actor(SCHEDULER, NAMESPACE)
        assert not any(ray.get(first.status.remote())["jobs"].values())
        application({})  # the configuration is applied again, with other settings
        assert ray.get_actor(SCHEDULER, NAMESPACE)._actor_id != first._actor_id
    finally:
        ray.kill(ray.get_actor(SCHEDULER, NAMESPACE), no_restart=True)
