"""A real Ray head beside the session's S3 and MLflow, a small random base, and real clips."""

import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from registry.jobs import JobStore
from registry.objects import ObjectStore
from services.platform import Stack
from services.runtime import NAMESPACE, SCHEDULER
from services.settings import Settings
from services.tuning.scheduler.actor import start_scheduler
from tav import Video
from tav_client.schemas import ClipInfo, TuningJob, TuningJobCreate, TuningParams
from tests.eval.conftest import write_clip_model
from tests.tav.conftest import write_random_base
from tests.tav.random_captioner import write_random_captioner


@pytest.fixture(scope="session")
def small_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_base(tmp_path_factory.mktemp("bases") / "small", seed=3)


@pytest.fixture(scope="module")
def settings(cluster: Stack, small_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return cluster.settings().model_copy(
        update={
            "base": str(small_base),
            "experiment": f"tuning-{uuid.uuid4().hex[:8]}",  # the scheduler takes up every open job of its experiment
            "work_dir": tmp_path_factory.mktemp("work"),
            "compute_threads": 1,
            "tuner_idle_seconds": 60.0,
            "checkpoint_seconds": 0.5,
            "captioner": str(write_random_captioner(tmp_path_factory.mktemp("captioner"))),
            "eval_clip_model": str(write_clip_model(tmp_path_factory.mktemp("clip"), seed=0)),
        }
    )


@pytest.fixture(scope="module")
def scheduler(settings: Settings) -> Iterator[ray.actor.ActorHandle]:
    actor = start_scheduler(settings)
    yield actor
    ray.kill(ray.get_actor(SCHEDULER, NAMESPACE), no_restart=True)


@pytest.fixture
def submit(settings: Settings, tmp_path: Path, scheduler: ray.actor.ActorHandle):
    """Store a small clip and queue a job on it, as the gateway does."""
    objects, jobs = ObjectStore(settings), JobStore(settings)

    def do(
        caption: str | None = "a red square",
        content: bytes | None = None,
        base: str | None = None,
        create: dict[str, Any] | None = None,
        **params: object,
    ) -> TuningJob:
        path = tmp_path / "source.mp4"
        frames = np.full((6, 16, 16, 3), 60, np.uint8)
        for i, frame in enumerate(frames):
            frame[6:11, 2 * i : 2 * i + 5] = (220, 40, 40)
        path.write_bytes(Video(frames, 8).encode() if content is None else content)
        stored = objects.put_clip(path)
        clip = ClipInfo(uri=stored.uri, sha256=stored.sha256, width=16, height=16, num_frames=6, fps=8)
        defaults = {"num_frames": 4, "size": (16, 16), "steps": 5, "learning_rate": 1e-3}
        tuning = TuningParams(**defaults | params)
        request = TuningJobCreate(caption=caption, params=tuning, validation_prompts=["a blue square"], **create or {})
        job = jobs.create(request, clip, base or settings.base, "red-square", gpus=request.gpus or 1)
        ray.get(scheduler.notify.remote(job))
        return job

    return do


@pytest.fixture
def finished(scheduler: ray.actor.ActorHandle):
    """Wait for a job to end, by its events."""

    def wait(job: TuningJob, timeout_s: float = 240) -> TuningJob:
        return follow(scheduler, job, lambda j: j.status.final, timeout_s)

    return wait


def follow(scheduler: ray.actor.ActorHandle, job: TuningJob, until, timeout_s: float = 240) -> TuningJob:
    """The first snapshot that fulfils `until`."""
    after, deadline = 0, time.monotonic() + timeout_s
    while (left := deadline - time.monotonic()) > 0:
        events = ray.get(scheduler.events.remote(job.id, after, min(left, 10)))
        for event_id, snapshot in events:
            after = event_id
            if until(snapshot):
                return snapshot
    raise AssertionError(f"not within {timeout_s} s; the last: {ray.get(scheduler.live.remote(job.id))}")
