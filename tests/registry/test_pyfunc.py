"""A registered version samples through MLflow's own loading."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path

import mlflow
import pandas as pd
import pytest
import torch

from registry.versions import VersionInfo, VersionStore
from services.platform import Stack
from tav.base import Base
from tav.config import InvertConfig, TuneConfig
from tav.delta import Delta, DeltaMeta, Origin
from tav.errors import InvalidConfig
from tav.inflation import inflate
from tav.latents import Latents, LatentsMeta
from tav_client.schemas import TuningJob
from tests.tav.conftest import write_random_base


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_base(tmp_path_factory.mktemp("base"), seed=0)


@pytest.fixture
def tuned(base_folder: Path, tmp_path: Path) -> Path:
    """A result's folder, with a delta that no step has changed."""
    base, folder = Base.load(str(base_folder)), tmp_path / "tuned"
    folder.mkdir()
    origin = Origin(base=str(base_folder), fingerprint=base.fingerprint, caption="a ball", num_frames=2, size=(16, 16), fps=4.0)
    meta = DeltaMeta(origin=origin, attention="sparse_causal", group_norm="video", tune=TuneConfig())
    Delta.extract(inflate(base.unet), meta).save(folder / "delta.safetensors")
    noise = torch.randn(1, 4, 2, 16 // base.scale, 16 // base.scale, generator=torch.Generator().manual_seed(0))
    Latents(noise, LatentsMeta(origin=origin, invert=InvertConfig())).save(folder / "latents.safetensors")
    (folder / "config.json").write_text("{}")
    return folder


def test_a_version_samples_through_mlflow(
    versions: VersionStore,
    new_job: Callable[..., TuningJob],
    tuned: Path,
    mlflow_server: Stack,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = f"ball-{uuid.uuid4().hex[:8]}"
    versions.register(new_job(model), tuned, VersionInfo("offline", "f" * 64, "a ball", 2, (16, 16)))
    versions.set_alias(model, "production", 1)
    for name, value in mlflow_server.environment().items():
        monkeypatch.setenv(name, value)
    loaded = mlflow.pyfunc.load_model(f"models:/{model}@production")
    rows = pd.DataFrame([{"prompt": "a red ball"}, {"prompt": "a blue ball", "format": "gif"}])
    videos = loaded.predict(rows, params={"num_inference_steps": 2})
    assert [(v["format"], v["num_frames"], v["size"], v["fps"]) for v in videos] == [
        ("mp4", 2, (16, 16), 4.0),
        ("gif", 2, (16, 16), 4.0),
    ]
    assert videos[0]["video"][4:8] == b"ftyp"
    with pytest.raises(InvalidConfig, match="num_steps"):
        loaded.predict([{"prompt": "a ball", "num_steps": 3}])
