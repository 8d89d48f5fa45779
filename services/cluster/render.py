"""A template of deploy/ and an operator's settings as the cluster file that `ray up` takes.

A `${name}` in a string stands for a setting of `ClusterSettings`; alone in a string it keeps its type. A key without a value is
left out. Templates are parsed before values are put in, so that no value can change their structure.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from services.cluster.settings import PREFIX, ClusterError, OperatorSettings
from services.platform.daemons import s3_environment
from services.runtime import ENVIRONMENT

CHECKOUT = Path(__file__).parents[2]
_PLACEHOLDER = re.compile(r"\$\{([a-z0-9_]+)\}")
_ACCELERATOR = "accelerator_type:"
_HEAD_AWAY_SECONDS = 600
"""How long other machines wait for a head whose state Redis keeps, before their Ray ends."""


def fill(node: Any, values: Mapping[str, Any]) -> Any:
    """Return a parsed YAML node with every `${name}` replaced.

    Args:
        node: the root, or any node below it.
        values: by name; a mapping's entry whose value becomes None is left out.

    Raises:
        ClusterError: no setting has that name.
    """
    if isinstance(node, dict):
        mapping = {key: fill(value, values) for key, value in node.items()}
        return {key: value for key, value in mapping.items() if value is not None}
    if isinstance(node, list):
        return [fill(item, values) for item in node]
    if not isinstance(node, str):
        return node
    if unknown := set(_PLACEHOLDER.findall(node)) - set(values):
        raise ClusterError(f"{node!r} names {', '.join(sorted(unknown))}, which is no setting of this cloud.")
    if match := _PLACEHOLDER.fullmatch(node):
        return values[match[1]]
    return _PLACEHOLDER.sub(lambda match: str(values[match[1]]), node)


def render(cloud: str, settings_file: Path, out: Path, wheels: bool = True) -> Path:
    """Write `OUT/cluster.yaml` and `OUT/node/`, the folder that every machine gets as `~/tav`.

    For Amazon, write the policies of its two roles too: `OUT/head.json` and `OUT/s3.json`.

    Args:
        cloud: `aws` or `gcp`.
        settings_file: the operator's.
        out: a folder for the output alone; it is replaced.
        wheels: whether to build the packages for machines without a container image.

    Returns:
        The cluster file.

    Raises:
        ClusterError: a setting is missing or wrong.
    """
    operator = OperatorSettings(cloud, settings_file)
    template = {**_template("common"), **_template(cloud)}
    shutil.rmtree(out, ignore_errors=True)
    node = out / "node"
    node.mkdir(parents=True)
    for source in ("deploy/node/env.sh", "deploy/node/setup.sh", "tools/system-packages.sh", "constraints.txt"):
        shutil.copy(CHECKOUT / source, node)
    if wheels and operator.cluster.image is None:
        _build_wheels(node)
    values = template_values(operator) | {
        "node_folder": str(node.resolve()),
        "code": digest(node),
        "s3_bucket": operator.services.s3_bucket,
    }
    cluster = fill(template, values)
    if operator.cluster.image is None:
        del cluster["docker"]
    write_private(node / "settings.env", node_environment(operator, gpu_types(cluster)))
    if cloud == "aws":
        for policy in (CHECKOUT / "deploy" / "iam").glob("*.json"):
            (out / policy.name).write_text(json.dumps(fill(json.loads(policy.read_text()), values), indent=2) + "\n")
    (out / "cluster.yaml").write_text(yaml.safe_dump(cluster, sort_keys=False, width=1000))
    return out / "cluster.yaml"


def _template(name: str) -> dict[str, Any]:
    template: dict[str, Any] = yaml.safe_load((CHECKOUT / "deploy" / f"{name}.yaml").read_text())
    return template


def template_values(operator: OperatorSettings) -> dict[str, Any]:
    """Return the values that templates may name. Secrets are not among them: they travel in `settings.env`."""
    fields = type(operator.cluster).model_fields
    values = {name: getattr(operator.cluster, name) for name in fields}
    return {name: value for name, value in values.items() if "SecretStr" not in str(fields[name].annotation)}


def gpu_types(cluster: Mapping[str, Any]) -> list[str]:
    """Return the accelerator types of a cluster file's machines, as jobs may ask for them."""
    names = [name for node in cluster["available_node_types"].values() for name in node["resources"]]
    return sorted({name.removeprefix(_ACCELERATOR) for name in names if name.startswith(_ACCELERATOR)})


def environment(operator: OperatorSettings, gpu_types: list[str]) -> dict[str, str]:
    """Return the environment of every machine's processes: the settings of the services, S3 and Ray."""
    services, cluster = operator.services, operator.cluster
    if not services.gpu_types:
        services = services.model_copy(update={"gpu_types": gpu_types})
    variables = services.environment() | s3_environment(services) | ENVIRONMENT
    variables |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": cluster.ray_token.get_secret_value()}
    variables["RAY_USAGE_STATS_ENABLED"] = "0"
    if cluster.mlflow_database is not None:
        del variables["TAV_MLFLOW_TRACKING_URI"]  # the head finds its own address
        variables[f"{PREFIX}MLFLOW_DATABASE"] = cluster.mlflow_database.get_secret_value()
        variables[f"{PREFIX}MLFLOW_PORT"] = str(cluster.mlflow_port)
    if cluster.redis is not None:
        variables |= {"RAY_REDIS_ADDRESS": cluster.redis, "RAY_external_storage_namespace": cluster.name}
        variables["RAY_gcs_rpc_server_reconnect_timeout_s"] = str(_HEAD_AWAY_SECONDS)
        if cluster.redis_password is not None:
            variables["RAY_REDIS_PASSWORD"] = cluster.redis_password.get_secret_value()
    return variables | operator.extra_variables


def node_environment(operator: OperatorSettings, gpu_types: list[str]) -> str:
    """Return `settings.env` as a shell reads it."""
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in environment(operator, gpu_types).items())


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read."""
    path.touch(mode=0o600)
    path.write_text(text)


def digest(folder: Path) -> str:
    """Return a digest of what is installed on a machine; a machine installs again when it changes."""
    sha256 = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        sha256.update(path.name.encode() + path.read_bytes())
    return sha256.hexdigest()[:12]


def _build_wheels(folder: Path) -> None:
    """Build the checkout's two packages; the same code gives the same bytes."""
    ignored = shutil.ignore_patterns(".*", "*.egg-info", "build", "tests", "benchmarks", "docs", "out")
    with tempfile.TemporaryDirectory() as scratch:
        copy = shutil.copytree(CHECKOUT, Path(scratch) / "tav", ignore=ignored)  # setuptools writes where it builds
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder)]
        command += [str(copy), str(copy / "clients" / "python")]
        environment = os.environ | {"SOURCE_DATE_EPOCH": "315532800"}
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if result.returncode:
        raise ClusterError(f"The packages for the machines could not be built: {result.stderr.strip()[-1000:]}")
