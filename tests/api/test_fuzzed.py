"""The gateway keeps its own description, whatever it is asked: cases made from `/openapi.json` by schemathesis."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from registry.settings import RegistrySettings
from registry.tenants import DEFAULT_TENANT
from services.api.keys import KeyFile, make_key
from services.settings import Settings
from tav_client.schemas import ModelVersion
from tests.api.conftest import Gateway
from tests.api.fakes import sampled

CASES = int(os.environ.get("TAV_FUZZ_CASES", "300"))
"""About so many; `make fuzz` asks for all."""

UNCHECKED = "positive_data_acceptance"
"""What the schema allows may still be refused for a reason that no schema tells, such as `fps` together with `seconds`."""


@pytest.mark.slow
def test_no_request_that_the_description_leads_to_is_answered_otherwise_than_it_says(
    start_gateway: Callable[..., Gateway],
    version: ModelVersion,
    mp4: bytes,
    registry_settings: RegistrySettings,
    tmp_path: Path,
) -> None:
    key, record = make_key(DEFAULT_TENANT, operator=True)
    place = str(tmp_path / "keys.json")
    KeyFile(place, Settings()).write({record.id: record})
    gateway = start_gateway(api_keys_file=place, requests_per_minute=None)
    gateway.http.headers["authorization"] = f"Bearer {key}"
    gateway.sampler.reply = sampled(mp4)
    video = gateway.http.post("/v1/videos/sync", json={"model": version.name, "prompt": "a blue ball"})
    known = {"job_id": version.job_id, "name": version.name, "video_id": video.headers["x-tav-video-id"]}
    for run in (known["job_id"], known["video_id"]):
        _widen(MlflowClient(registry_settings.mlflow_tracking_uri), run)
    assert all(gateway.http.get(f"/v1/{kind}").status_code == 200 for kind in _addresses(known))
    url = f"{gateway.http.base_url}/openapi.json"
    calls = sum(map(len, gateway.http.get("/openapi.json").json()["paths"].values()))
    command = [sys.executable, "-m", "schemathesis.cli", "run", url, "--header", f"Authorization: Bearer {key}"]
    command += ["--max-examples", str(max(1, CASES // calls)), "--checks", "all", "--exclude-checks", UNCHECKED]
    command += ["--phases", "examples,coverage,fuzzing", "--suppress-health-check", "all", "--seed", "1", "--no-color"]
    command += ["--request-timeout", "60"]  # a busy machine is no violation
    hooks = {"SCHEMATHESIS_HOOKS": "tests.api.fuzz_hooks", "TAV_FUZZ_KNOWN": json.dumps(known)}
    environment = {**os.environ, **hooks, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2000:]
    assert len(gateway.sampler.requests) > 10, "the cases came past the gateway's checks"


def _addresses(known: dict[str, str]) -> list[str]:
    return [f"tuning-jobs/{known['job_id']}", f"models/{known['name']}", f"videos/{known['video_id']}"]


def _widen(client: MlflowClient, run: str) -> None:
    """Make of what was asked something accepted within other bounds than today's."""
    request = json.loads(client.get_run(run).data.tags["tav.request"])
    if "params" in request:
        request |= {"priority": 10**6, "params": request["params"] | {"steps": 10**9, "seed": 2**65, "size": [7, 9]}}
    else:
        request |= {"fps": 1e-300, "seed": 2**65, "size": [7, 9], "prompt": "x" * 1500}
    client.set_tag(run, "tav.request", json.dumps(request))
