"""From a file of deploy/ and an operator's settings to what `ray up` or `kubectl apply` takes.

A `${name}` in a string stands for a setting of `ClusterSettings`; alone in a string it keeps its type. A key without a value is
left out. The file is parsed before anything is put in, so that no value can change its structure.
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

from services.cluster.errors import ClusterError
from services.cluster.settings import PREFIX, Filling
from services.platform.daemons import s3_environment
from services.runtime import ENVIRONMENT

CHECKOUT = Path(__file__).parents[2]
_PLACEHOLDER = re.compile(r"\$\{([a-z0-9_]+)\}")
_ACCELERATOR = "accelerator_type:"
_HEAD_MAY_BE_AWAY_SECONDS = 600
"""Where Redis keeps the head's state, other machines wait so long for it before their Ray ends."""


def fill(node: Any, values: Mapping[str, Any]) -> Any:
    """A parsed YAML with every `${name}` replaced.

    Raises:
        ClusterError: a name that no setting has.
    """
    if isinstance(node, dict):
        filled = {key: fill(value, values) for key, value in node.items()}
        return {key: value for key, value in filled.items() if value is not None}
    if isinstance(node, list):
        return [fill(item, values) for item in node]
    if not isinstance(node, str):
        return node
    if unknown := set(_PLACEHOLDER.findall(node)) - set(values):
        raise ClusterError(f"{node!r} names {', '.join(sorted(unknown))}, which is no setting of this cloud.")
    if alone := _PLACEHOLDER.fullmatch(node):
        return values[alone[1]]
    return _PLACEHOLDER.sub(lambda found: str(values[found[1]]), node)


def render(cloud: str, settings: Path, out: Path, wheels: bool = True) -> Path:
    """Write `OUT/cluster.yaml` and `OUT/node/`, the folder that every machine gets as `~/tav`; for Amazon also the policies of
    its two roles, `OUT/head.json` and `OUT/s3.json`.

    Args:
        cloud: `aws` or `gcp`.
        settings: The operator's file.
        out: A folder of this program's own; it is replaced.
        wheels: Whether plain machines' packages are built (a container image has them).

    Returns:
        The cluster file.

    Raises:
        ClusterError: a setting is missing or wrong.
    """
    filling = Filling(cloud, settings)
    template = {**_template("common"), **_template(cloud)}
    shutil.rmtree(out, ignore_errors=True)
    node = out / "node"
    node.mkdir(parents=True)
    for source in ("deploy/node/env.sh", "deploy/node/setup.sh", "tools/system-packages.sh", "constraints.txt"):
        shutil.copy(CHECKOUT / source, node)
    if wheels and filling.cluster.image is None:
        _build_wheels(node)
    values = plain(filling) | {
        "node_folder": str(node.resolve()),
        "code": digest(node),
        "s3_bucket": filling.services.s3_bucket,
    }
    cluster = fill(template, values)
    if filling.cluster.image is None:
        del cluster["docker"]
    write_private(node / "settings.env", node_environment(filling, gpu_types(cluster)))
    if cloud == "aws":
        for policy in (CHECKOUT / "deploy" / "iam").glob("*.json"):
            (out / policy.name).write_text(json.dumps(fill(json.loads(policy.read_text()), values), indent=2) + "\n")
    (out / "cluster.yaml").write_text(yaml.safe_dump(cluster, sort_keys=False, width=1000))
    return out / "cluster.yaml"


def _template(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((CHECKOUT / "deploy" / f"{name}.yaml").read_text())
    return found


def plain(filling: Filling) -> dict[str, Any]:
    """The values that may stand in a file; secrets may not, they travel in `settings.env`."""
    fields = type(filling.cluster).model_fields
    values = {name: getattr(filling.cluster, name) for name in fields}
    return {name: value for name, value in values.items() if "SecretStr" not in str(fields[name].annotation)}


def gpu_types(cluster: Mapping[str, Any]) -> list[str]:
    """The accelerator types of a cluster file's machines, as jobs may ask for them."""
    resources = [kind["resources"] for kind in cluster["available_node_types"].values()]
    return sorted({name.removeprefix(_ACCELERATOR) for has in resources for name in has if name.startswith(_ACCELERATOR)})


def environment(filling: Filling, gpu_types: list[str]) -> dict[str, str]:
    """What every machine's processes have in their environment: the services' settings, S3's and Ray's."""
    services, cluster = filling.services, filling.cluster
    if not services.gpu_types:
        services = services.model_copy(update={"gpu_types": gpu_types})
    made = services.environment() | s3_environment(services) | ENVIRONMENT
    made |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": cluster.ray_token.get_secret_value(), "RAY_USAGE_STATS_ENABLED": "0"}
    if cluster.mlflow_database is not None:
        del made["TAV_MLFLOW_TRACKING_URI"]  # the head finds its own address
        made[f"{PREFIX}MLFLOW_DATABASE"] = cluster.mlflow_database.get_secret_value()
        made[f"{PREFIX}MLFLOW_PORT"] = str(cluster.mlflow_port)
    if cluster.redis is not None:
        made |= {"RAY_REDIS_ADDRESS": cluster.redis, "RAY_external_storage_namespace": cluster.name}
        made["RAY_gcs_rpc_server_reconnect_timeout_s"] = str(_HEAD_MAY_BE_AWAY_SECONDS)
        if cluster.redis_password is not None:
            made["RAY_REDIS_PASSWORD"] = cluster.redis_password.get_secret_value()
    return made | filling.others


def node_environment(filling: Filling, gpu_types: list[str]) -> str:
    """`settings.env`, as a shell reads it."""
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in environment(filling, gpu_types).items())


def write_private(path: Path, text: str) -> None:
    """A file for its owner alone."""
    path.touch(mode=0o600)
    path.write_text(text)


def digest(folder: Path) -> str:
    """Over what is installed on a machine: another one makes it install again."""
    found = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        found.update(path.name.encode() + path.read_bytes())
    return found.hexdigest()[:12]


def _build_wheels(folder: Path) -> None:
    """The checkout's two packages; the same code gives the same bytes."""
    unneeded = shutil.ignore_patterns(".*", "*.egg-info", "build", "tests", "benchmarks", "docs", "out")
    with tempfile.TemporaryDirectory() as place:
        copy = shutil.copytree(CHECKOUT, Path(place) / "tav", ignore=unneeded)  # setuptools leaves its traces where it builds
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder)]
        command += [str(copy), str(copy / "clients" / "python")]
        environment = os.environ | {"SOURCE_DATE_EPOCH": "315532800"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ClusterError(f"The packages for the machines could not be built: {done.stderr.strip()[-1000:]}")
