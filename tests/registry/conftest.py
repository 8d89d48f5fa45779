"""A stored clip, jobs on it, and the files of a result."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from registry.jobs import JobStore
from registry.objects import ObjectStore
from registry.registration import VersionInfo
from tav.base import Base
from tav.config import InvertConfig, TuneConfig
from tav.delta import Delta, DeltaMeta, Origin
from tav.inflation import inflate
from tav.latents import Latents, LatentsMeta
from tav_client.schemas import ClipInfo, TuningJob, TuningJobCreate

INFO = VersionInfo(base="offline", base_fingerprint="f" * 64, caption="a red ball is moving", num_frames=8, size=(64, 64))


@pytest.fixture
def clip(objects: ObjectStore, tmp_path: Path) -> ClipInfo:
    """A stored clip with content of its own."""
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"not really a video " + uuid.uuid4().bytes)
    stored = objects.put_clip(path)
    return ClipInfo(uri=stored.uri, sha256=stored.sha256, width=64, height=64, num_frames=8, fps=8.0)


@pytest.fixture
def new_job(jobs: JobStore, clip: ClipInfo) -> Callable[..., TuningJob]:
    """Makes jobs of the clip; `model` and fields of the request as wanted."""

    def make(model: str = "", **fields: object) -> TuningJob:
        request = TuningJobCreate.model_validate({"caption": "a red ball is moving", **fields})
        return jobs.create(request, clip, base="offline", model=model or f"ball-{uuid.uuid4().hex[:12]}")

    return make


@pytest.fixture
def result(tmp_path: Path) -> Path:
    """The folder a tuner leaves behind."""
    folder = tmp_path / "result"
    folder.mkdir()
    (folder / "delta.safetensors").write_bytes(uuid.uuid4().bytes * 5000)
    (folder / "latents.safetensors").write_bytes(uuid.uuid4().bytes * 3000)
    (folder / "config.json").write_text(json.dumps({"base": "offline"}))
    (folder / "preview.mp4").write_bytes(b"preview")
    return folder


def write_untuned_result(base_folder: Path, folder: Path) -> Path:
    """A result's folder that samples: a delta that no step has changed, 2 frames of 16x16."""
    base = Base.load(str(base_folder))
    folder.mkdir()
    origin = Origin(base=str(base_folder), fingerprint=base.fingerprint, caption="a ball", num_frames=2, size=(16, 16), fps=4.0)
    meta = DeltaMeta(origin=origin, attention="sparse_causal", group_norm="video", tune=TuneConfig())
    Delta.extract(inflate(base.unet), meta).save(folder / "delta.safetensors")
    noise = torch.randn(1, 4, 2, 16 // base.scale, 16 // base.scale, generator=torch.Generator().manual_seed(0))
    Latents(noise, LatentsMeta(origin=origin, invert=InvertConfig())).save(folder / "latents.safetensors")
    (folder / "config.json").write_text("{}")
    return folder
