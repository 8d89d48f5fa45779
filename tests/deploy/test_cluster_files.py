"""The cluster files against Ray's own checks, and the clouds' own descriptions of a machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.tags import TAG_RAY_NODE_KIND
from ray.util.accelerators import accelerators

from services.cluster.render import digest, fill, gpu_types, render
from services.cluster.settings import ClusterError
from tests.deploy.operator_file import EVERYWHERE, write_settings

CLOUDS = ("aws", "gcp")


def rendered(cloud: str, folder: Path, **more: str) -> dict[str, Any]:
    path = render(cloud, write_settings(cloud, folder, **more), folder / "out", wheels=False)
    cluster: dict[str, Any] = yaml.safe_load(path.read_text())
    return cluster


@pytest.mark.parametrize("image", ["", "registry.internal/tav@sha256:" + "0" * 64])
@pytest.mark.parametrize("cloud", CLOUDS)
def test_ray_takes_the_file_with_and_without_an_image(cloud: str, image: str, tmp_path: Path) -> None:
    prepared = prepare_config(rendered(cloud, tmp_path, TAV_CLUSTER_IMAGE=image, TAV_CLUSTER_MAX_GPU_NODES="7"))
    validate_config(prepared)
    assert prepared["max_workers"] == 7
    assert prepared.get("docker", {}).get("image") == (image or None)
    if image:
        assert "--shm-size=8g" in prepared["docker"]["run_options"]


@pytest.mark.parametrize("cloud", CLOUDS)
def test_machines_with_gpus_come_from_zero_in_two_classes_spot_before_on_demand(cloud: str, tmp_path: Path) -> None:
    config = prepare_config(rendered(cloud, tmp_path))
    kinds = config["available_node_types"]
    head = kinds.pop(config["head_node_type"])
    assert "GPU" not in head["resources"] and head["max_workers"] == 0
    assert len(gpu_types({"available_node_types": kinds})) == 2
    known = {value for name, value in vars(accelerators).items() if name.isupper()}
    for name, kind in kinds.items():
        (gpu,) = gpu_types({"available_node_types": {name: kind}})
        assert gpu in known
        assert (kind["min_workers"], kind["max_workers"], kind["resources"]["GPU"]) == (0, 4, 1)
        if name.endswith("-spot"):
            on_demand = kinds[name.removesuffix("-spot")]
            assert kind["resources"] == on_demand["resources"]
            assert kind["priority"] > on_demand.get("priority", 0)


@pytest.mark.parametrize("cloud", CLOUDS)
def test_nothing_listens_to_strangers_and_no_secret_is_in_the_file(cloud: str, tmp_path: Path) -> None:
    config = prepare_config(rendered(cloud, tmp_path))
    (start,) = [command for command in config["head_start_ray_commands"] if "ray start" in command]
    assert "--dashboard-host=127.0.0.1" in start and "--autoscaling-config=~/ray_bootstrap_config.yaml" in start
    text = (tmp_path / "out" / "cluster.yaml").read_text()
    assert all(secret not in text for secret in (EVERYWHERE["TAV_CLUSTER_RAY_TOKEN"], "ecret", "hmac"))


def test_amazons_roles_may_do_what_they_must_and_no_more(tmp_path: Path) -> None:
    rendered("aws", tmp_path)
    head, s3 = (json.loads((tmp_path / "out" / f"{name}.json").read_text()) for name in ("head", "s3"))
    # which places: tests/registry/test_rights.py
    places = [place for statement in s3["Statement"] for place in _list(statement["Resource"])]
    assert places and all(place == "arn:aws:s3:::clips" or place.startswith("arn:aws:s3:::clips/") for place in places)
    by_name = {statement["Sid"]: statement for statement in head["Statement"]}
    assert by_name["EndItsOwn"]["Condition"] == {"StringEquals": {"aws:ResourceTag/ray-cluster-name": "tav"}}
    assert by_name["GiveGpuMachinesTheirRights"]["Resource"] == "arn:aws:iam::*:role/tav-gpu"
    assert not any("*" in action for statement in head["Statement"] + s3["Statement"] for action in _list(statement["Action"]))


def _list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


@pytest.mark.parametrize("cloud", CLOUDS)
def test_commands_are_shell(cloud: str, tmp_path: Path) -> None:
    config = prepare_config(rendered(cloud, tmp_path))
    for key in ("initialization", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray"):
        for command in config[f"{key}_commands"]:
            assert subprocess.run(["bash", "-n", "-c", command], check=False).returncode == 0, command


def test_a_value_cannot_change_the_files_structure_and_a_wrong_name_is_told() -> None:
    assert fill({"a": "${x}", "b": ["c-${x}"]}, {"x": "1: {evil: true}"}) == {
        "a": "1: {evil: true}",
        "b": ["c-1: {evil: true}"],
    }
    assert fill({"n": "${x}", "gone": "${none}", "kept": 0}, {"x": 3, "none": None}) == {"n": 3, "kept": 0}
    with pytest.raises(ClusterError, match="names typo, which is no setting"):
        fill(["${typo}"], {})


def test_other_code_makes_machines_install_again(tmp_path: Path) -> None:
    (tmp_path / "one.whl").write_bytes(b"1")
    before = digest(tmp_path)
    assert digest(tmp_path) == before
    (tmp_path / "one.whl").write_bytes(b"2")
    assert digest(tmp_path) != before


def test_google_knows_every_field_of_its_machines(tmp_path: Path) -> None:
    document = files("googleapiclient") / "discovery_cache" / "documents" / "compute.v1.json"
    schemas = json.loads(document.read_text())["schemas"]
    for kind in rendered("gcp", tmp_path)["available_node_types"].values():
        check_google(kind["node_config"], {"$ref": "Instance"}, schemas)
    with pytest.raises(AssertionError, match="machineTyp"):
        check_google({"machineTyp": "x"}, {"$ref": "Instance"}, schemas)


def check_google(value: Any, schema: dict[str, Any], schemas: dict[str, Any]) -> None:
    """Google's discovery documents: like JSON Schema, save that a reference is a bare name and everything else is unknown."""
    schema = schemas[schema["$ref"]] if "$ref" in schema else schema
    kind = {"object": dict, "array": list, "string": (str, int), "boolean": bool, "integer": int}[schema["type"]]
    assert isinstance(value, kind), (value, schema)
    if isinstance(value, dict):
        assert set(value) <= set(schema["properties"]), sorted(set(value) - set(schema["properties"]))
        for key, item in value.items():
            check_google(item, schema["properties"][key], schemas)
    elif isinstance(value, list):
        for item in value:
            check_google(item, schema["items"], schemas)
    elif "enum" in schema:
        assert value in schema["enum"]


@pytest.mark.slow
def test_amazon_launches_head_and_spot_machines_with_their_rights_and_closed_to_others(tmp_path: Path) -> None:
    """`ray up`'s own steps up to the first login, against a moto server."""
    cluster = render("aws", write_settings("aws", tmp_path), tmp_path / "out", wheels=False)
    environment = os.environ | {"HOME": str(tmp_path), "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}
    environment |= {"AWS_DEFAULT_REGION": "us-east-1", "RAY_AUTH_MODE": "disabled"}
    command = [sys.executable, "-m", "tests.deploy.amazon", str(cluster)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    seen = json.loads(done.stdout.splitlines()[-1])
    machines = seen["machines"]
    assert sorted(machines) == ["a10g", "a10g-spot", "head", "l40s", "l40s-spot"]
    for name, machine in machines.items():
        assert machine["profile"] == ("tav-head" if name == "head" else "tav-gpu")
        assert machine["lifecycle"] == ("spot" if name.endswith("-spot") else None)
        assert machine["tags"]["ray-cluster-name"] == "tav"
        assert machine["tags"][TAG_RAY_NODE_KIND] == ("head" if name == "head" else "worker")
        assert machine["tokens"] == "required"
        assert machine["groups"] == ["ray-autoscaler-tav"]
    assert machines["l40s"]["type"] == "g6e.2xlarge"
    assert seen["open"] == [[22, 22]], "only ssh may come from elsewhere"
    assert seen["within"] == [seen["group"]]
    assert sorted(seen["roles"]) == ["tav-gpu", "tav-head"], "Ray made a role of its own, with all rights on every bucket"
    assert seen["resources"]["a10g-spot"]["accelerator_type:A10G"] == 1
    assert seen["after_down"] == []
