"""/v1/estimates: gateway, command and tuner agree on a job, and on what is no job."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from services.settings import Settings
from services.tuning.estimates import rungs
from services.tuning.tuner.warm_tuner import WarmTuner
from tav_client.cli import _app
from tav_client.schemas import Estimates, TuningJob
from tests.api.conftest import Gateway


def test_gateway_command_and_tuner_estimate_a_job_alike_from_one_probe(
    start_gateway: Callable[..., Gateway], mp4: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TAV_DEVICE", "cpu")
    monkeypatch.setenv("TAV_COMPUTE_THREADS", "1")
    gateway = start_gateway(device="cpu", compute_threads=1)
    params = {"num_frames": 8, "steps": 40}
    estimates = Estimates.model_validate(gateway.http.post("/v1/estimates", json={"params": params, "videos": 1}).json())
    job = {"caption": "a red square", "params": params, "validation_prompts": ["a blue square"]}
    submitted = TuningJob.model_validate(gateway.submit(mp4, job).json())
    command = ["estimate", "--num-frames", "8", "--steps", "40", "--videos", "1", "--json"]
    printed = Estimates.model_validate(json.loads(CliRunner().invoke(_app.app, command).stdout))
    settings = Settings()
    tuner = WarmTuner("offline", settings, 0).forecast(submitted, rungs(submitted.params, settings, cuda=False), 1)
    assert submitted.estimate is not None and tuner is not None
    seconds = [[entry.seconds for entry in estimate.settings] for estimate in (estimates, printed, tuner)]
    assert seconds[0] == seconds[1] == seconds[2]
    assert submitted.estimate.seconds == estimates.settings[estimates.chosen].seconds
    assert len(list((tmp_path / "cache" / "tav" / "devices").iterdir())) == 1


@pytest.mark.parametrize("size", [(12, 12), (64, 60), (4, 64)])
def test_an_estimate_refuses_a_size_as_the_job_would_be_refused(gateway: Gateway, mp4: bytes, size: tuple[int, int]) -> None:
    params = {"size": size}
    estimate = gateway.http.post("/v1/estimates", json={"params": params})
    job = gateway.submit(mp4, {"caption": "a red square", "params": params})
    assert estimate.status_code == 422 and "multiples of 8" in estimate.json()["detail"]
    assert (estimate.status_code, estimate.json()) == (job.status_code, job.json())
