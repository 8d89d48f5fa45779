"""Tuners and the cluster's autoscaler, on a Ray of its own with nodes that come and go."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

import pytest

from services.platform import Stack

pytestmark = pytest.mark.slow


def test_jobs_bring_up_gpu_nodes_from_zero_and_the_end_of_work_takes_them_away(mlflow_server: Stack, small_base: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="tav-as-", dir="/tmp") as folder:  # sockets need a short path
        settings = mlflow_server.settings().model_copy(
            update={
                "base": str(small_base),
                "experiment": f"autoscaling-{uuid.uuid4().hex[:8]}",
                "work_dir": Path(folder) / "work",
                "device": "cpu",  # the nodes' GPUs are numbers
                "tuner_gpus": 1.0,
                "gpu_types": ["T4", "A100"],
                "max_tuners": 4,
                "compute_threads": 1,
                "tuner_idle_seconds": 2.0,
            }
        )
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        environment |= settings.environment() | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": uuid.uuid4().hex}
        command = [sys.executable, "-m", "tests.tuning.autoscaling", folder]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=420, check=False)
        log = (Path(folder) / "head.log").read_text(errors="replace")[-2000:]
    seen = {line["event"]: line for line in map(json.loads, (x for x in done.stdout.splitlines() if x.startswith("{")))}
    assert done.returncode == 0, (seen, done.stderr[-3000:], log)
    assert seen["begin"]["gpu_nodes"] == 0
    assert [seen[name]["status"] for name in ("first", "second", "never")] == ["succeeded", "succeeded", "failed"], seen
    assert (seen["never"]["code"], seen["peak"]["gpu_nodes"]) == ("no_resources", 2)
    assert "A100" in seen["never"]["message"]
    assert (seen["end"]["gpu_nodes"], seen["end"]["placement_groups"]) == (0, [])
