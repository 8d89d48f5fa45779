"""A registered version samples through MLflow's own loading."""

from __future__ import annotations

import base64
import os
import re
import shlex
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import mlflow
import pandas as pd
import pytest

from registry.registration import VersionInfo
from registry.versions import VersionStore
from services.platform import Stack
from services.platform.ports import any_free
from tav.config import SampleConfig
from tav.errors import InvalidConfig
from tav.probe import probe
from tav_client.schemas import TuningJob
from tests.eventually import eventually
from tests.registry.conftest import write_untuned_result
from tests.tav.conftest import write_random_base

README = Path(__file__).parents[2] / "README.md"


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_base(tmp_path_factory.mktemp("base"), seed=0)


@pytest.fixture
def tuned(base_folder: Path, tmp_path: Path) -> Path:
    """A result's folder."""
    return write_untuned_result(base_folder, tmp_path / "tuned")


@pytest.fixture
def model(
    versions: VersionStore,
    new_job: Callable[..., TuningJob],
    tuned: Path,
    mlflow_server: Stack,
    monkeypatch: pytest.MonkeyPatch,
) -> str:
    """The address of a registered version, and an environment in which MLflow finds it."""
    name = f"ball-{uuid.uuid4().hex[:8]}"
    versions.register(new_job(name), tuned, VersionInfo("offline", "f" * 64, "a ball", 2, (16, 16)))
    versions.set_alias(name, "production", 1)
    for variable, value in mlflow_server.environment().items():
        monkeypatch.setenv(variable, value)
    return f"models:/{name}@production"


def test_a_version_samples_through_mlflow(model: str) -> None:
    loaded = mlflow.pyfunc.load_model(model)
    rows = pd.DataFrame([{"prompt": "a red ball"}, {"prompt": "a blue ball", "format": "gif"}])
    videos = loaded.predict(rows, params={"num_inference_steps": 2})
    assert [(v["format"], v["num_frames"], v["size"], v["fps"]) for v in videos] == [
        ("mp4", 2, (16, 16), 4.0),
        ("gif", 2, (16, 16), 4.0),
    ]
    assert videos[0]["video"][4:8] == b"ftyp"
    with pytest.raises(InvalidConfig, match="guidance_scale"):
        loaded.predict([{"prompt": "a ball", "guidance_scale": 0.5}])


def test_a_rows_fields_win_over_the_parameters_and_change_the_video(model: str) -> None:
    loaded = mlflow.pyfunc.load_model(model)
    rows = pd.DataFrame([{"prompt": "a ball"}, {"prompt": "a ball", "num_inference_steps": 3}])
    two, three = loaded.predict(rows, params={"num_inference_steps": 2})
    assert two["video"] == loaded.predict(rows[:1], params={"num_inference_steps": 2})[0]["video"]
    assert two["video"] != three["video"]
    assert three["video"] == loaded.predict([{"prompt": "a ball"}], params={"num_inference_steps": 3})[0]["video"]


def test_predictions_in_threads_as_mlflows_server_makes_them_do_not_mix(model: str) -> None:
    rows: list[dict[str, object]] = [
        {"prompt": "a red ball", "feature_injection": 1.0},
        {"prompt": "a blue ball", "use_inverted_latents": False, "num_frames": 3},
        {"prompt": "a green ball", "guidance_scale": 3.0},
    ]
    alone = mlflow.pyfunc.load_model(model)
    expected = [alone.predict([row], params={"num_inference_steps": 4})[0]["video"] for row in rows]
    shared = mlflow.pyfunc.load_model(model)  # its base is loaded by whichever thread comes first
    with ThreadPoolExecutor(6) as pool:
        contents = pool.map(lambda row: shared.predict([row], params={"num_inference_steps": 4})[0]["video"], rows * 4)
    assert list(contents) == expected * 4


def test_a_version_tells_its_signature_and_gives_an_example_that_samples(model: str) -> None:
    info = mlflow.models.get_model_info(model)
    assert {"prompt", "guidance_scale", "num_inference_steps", "seed"} <= set(info.signature.inputs.input_names())
    params = {param.name for param in info.signature.params.params}
    assert params >= {*SampleConfig.model_fields, "format", "use_inverted_latents"}
    loaded = mlflow.pyfunc.load_model(model)
    video, *others = loaded.predict(loaded.input_example, params={"num_inference_steps": 2, "format": "webm"})
    assert (video["format"], video["video"][:4], others) == ("webm", b"\x1a\x45\xdf\xa3", [])


@pytest.mark.slow
def test_mlflow_models_serve_samples_over_http_as_the_readme_calls_it(
    model: str, mlflow_server: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in mlflow_server.environment():
        monkeypatch.delenv(variable)
    (tmp_path / ".data").symlink_to(mlflow_server.root)
    [line] = re.findall(r"`(tav platform env -- mlflow models serve .*?)`", README.read_text())
    words = shlex.split(line.replace("models:/man-skiing/1", model))
    port = any_free("127.0.0.1")
    words[words.index("--port") + 1] = str(port)
    command = [str(Path(sys.executable).with_name(words[0])), *words[1:]]
    with (tmp_path / "serve.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, cwd=tmp_path)
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120, trust_env=False) as http:
                eventually(lambda: answers(http) or server.poll() is not None, "it does not answer", 240)
                assert server.poll() is None, (tmp_path / "serve.log").read_text()
                body = {"inputs": {"prompt": ["a red ball"]}, "params": {"num_inference_steps": 2, "guidance_scale": 2}}
                answer = http.post("/invocations", json=body)
                refused = http.post("/invocations", json={"inputs": {"colour": ["red"]}})
        finally:
            if server.poll() is None:
                os.killpg(server.pid, signal.SIGTERM)
                server.wait(30)
    assert answer.status_code == 200, answer.text
    [video] = answer.json()["predictions"]
    (tmp_path / "v.mp4").write_bytes(base64.b64decode(video["video"]))
    assert probe(tmp_path / "v.mp4").model_dump(include={"num_frames", "width", "codec"}) == {
        "num_frames": 2,
        "width": 16,
        "codec": "h264",
    }
    assert refused.status_code == 400 and "prompt" in refused.text


def answers(http: httpx.Client) -> bool:
    try:
        return http.get("/ping").status_code == 200
    except httpx.TransportError:
        return False
