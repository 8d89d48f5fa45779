"""The tuning service on a real Ray, MLflow and S3: scheduler, warm tuner, DeepSpeed."""

import os
import signal
from pathlib import Path

import psutil
import pytest
import ray
import torch
from mlflow import MlflowClient

from registry.jobs import JobStore
from registry.objects import ObjectStore
from registry.versions import VersionStore
from services.platform import Stack
from services.platform.stack import PARTS
from services.runtime import NAMESPACE, SCHEDULER
from services.settings import Settings
from tav import Base, Clip, Delta, Latents, invert
from tav.caption import Captioner
from tav_client.schemas import FailureCode, JobPhase, JobStatus
from tests.tuning.conftest import follow

pytestmark = pytest.mark.slow

LONG = "a red square that goes on and on " * 20 + "until the end"


def worker_pids(cluster: Stack) -> list[int]:
    """Processes of this cluster, and of no other on this machine, that hold a tuner's rank."""
    head = psutil.Process(cluster.status()[PARTS.index("ray")].pid)
    return [p.pid for p in head.children(recursive=True) if "RayTrainWorker" in " ".join(p.cmdline())]


def version_files(settings: Settings, version: int, folder: Path) -> tuple[Delta, Latents]:
    store = VersionStore(settings)
    store.fetch(store.get("red-square", version), folder)
    return Delta.load(folder / "delta.safetensors"), Latents.load(folder / "latents.safetensors")


def test_a_job_goes_through_its_phases_and_registers_a_version(settings: Settings, submit, finished, tmp_path: Path) -> None:
    job = finished(submit(num_frames=3, frame_start=1, frame_stride=2))
    assert job.status == JobStatus.succeeded, job.error
    delta, latents = version_files(settings, job.version, tmp_path / "version")
    base = Base.load(settings.base)
    delta.meta.origin.check(base)
    assert delta.meta.tune.steps == 5
    source = ObjectStore(settings).get_file(job.clip.uri, tmp_path / "source.mp4")
    clip = Clip.read(source, job.caption, 3, (16, 16), start=1, stride=2)
    torch.testing.assert_close(latents.tensor, invert(base, clip, delta, base.invert_config()).tensor, rtol=1e-3, atol=1e-3)
    names = {info.uri.rsplit("/artifacts/")[-1] for info in ObjectStore(settings).list("mlflow/") if job.id in info.uri}
    assert {"source.mp4", "config.json", "samples/1.mp4", "samples/prompts.json"} <= names
    assert not list(ObjectStore(settings).list("resume/"))
    metrics = MlflowClient(settings.mlflow_tracking_uri).get_run(job.id).data.metrics
    scores = ("frame_consistency", "textual_faithfulness", "warping_error", "flow_agreement")
    assert {f"eval/{where}{name}" for where in ("", "1/") for name in scores} <= set(metrics)
    assert -1 <= metrics["eval/flow_agreement"] <= 1


def test_a_clip_without_a_caption_is_captioned_and_tuned_with_it(settings: Settings, submit, finished, tmp_path: Path) -> None:
    job = finished(submit(caption=None))
    assert job.status == JobStatus.succeeded, job.error
    source = ObjectStore(settings).get_file(job.clip.uri, tmp_path / "source.mp4", job.clip.sha256)
    caption = Captioner(settings.captioner).caption_clip(source)
    for shown in (job, JobStore(settings).get(job.id)):
        assert (shown.caption, shown.caption_source) == (caption, "automatic")
    delta, _ = version_files(settings, job.version, tmp_path / "version")
    assert (delta.meta.origin.caption, delta.meta.origin.caption_source) == (caption, "automatic")
    assert finished(submit()).caption_source == "given"


def test_a_bad_job_fails_with_its_reason_and_the_next_one_is_unharmed(settings: Settings, submit, finished) -> None:
    broken = submit(content=b"this was a video once" * 40)
    too_long = submit(num_frames=50)
    cut, refused = submit(caption=LONG), submit(caption=LONG, create={"truncate": "error"})
    good = submit()
    for job, code in ((broken, "invalid_clip"), (too_long, "invalid_clip"), (refused, "invalid_config")):
        ended = finished(job)
        assert (ended.status, ended.error.code) == (JobStatus.failed, code), ended
        assert ended.attempt == 1
    assert "of caption it would not read" in finished(refused).error.message
    for job in (finished(cut), JobStore(settings).get(cut.id)):
        assert job.status == JobStatus.succeeded and LONG.endswith(job.unread["caption"]), job
    assert finished(good).status == JobStatus.succeeded and finished(good).unread == {}


def test_an_unknown_base_fails_the_job_with_advice(submit, finished) -> None:
    ended = finished(submit(base="/nowhere/at-all"))
    assert (ended.status, ended.error.code) == (JobStatus.failed, FailureCode.base_unavailable)
    assert "/nowhere/at-all" in ended.error.message


def test_queued_and_running_jobs_are_cancelled(scheduler: ray.actor.ActorHandle, settings: Settings, submit, finished) -> None:
    running, queued = submit(steps=100_000), submit()
    follow(scheduler, running, lambda job: job.phase == JobPhase.tuning and job.step > 2)
    ray.get(scheduler.cancel.remote(queued.id))
    ray.get(scheduler.cancel.remote(running.id))
    for job in (queued, running):
        assert finished(job).status == JobStatus.cancelled
        assert JobStore(settings).get(job.id).status == JobStatus.cancelled
    assert finished(submit()).status == JobStatus.succeeded  # the tuner is free again


def test_a_job_whose_worker_is_killed_resumes_and_ends_in_the_same_delta(
    cluster: Stack, scheduler: ray.actor.ActorHandle, settings: Settings, submit, finished, tmp_path: Path
) -> None:
    undisturbed = finished(submit(steps=80))
    job = submit(steps=80)
    follow(scheduler, job, lambda j: j.phase == JobPhase.tuning and j.step > 40)
    pids = worker_pids(cluster)
    assert pids
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    ended = finished(job)
    assert (ended.status, ended.attempt, ended.excused_attempts) == (JobStatus.succeeded, 2, 0), ended
    alone, _ = version_files(settings, undisturbed.version, tmp_path / "a")
    killed, _ = version_files(settings, ended.version, tmp_path / "b")
    assert all((alone.tensors[name] == tensor).all() for name, tensor in killed.tensors.items())


def test_a_killed_scheduler_comes_back_and_finishes_what_was_queued(scheduler: ray.actor.ActorHandle, submit, finished) -> None:
    jobs = [submit(steps=300), submit()]
    follow(scheduler, jobs[0], lambda job: job.phase == JobPhase.tuning)
    ray.kill(ray.get_actor(SCHEDULER, NAMESPACE), no_restart=False)
    begun, waited = [finished(job) for job in jobs]
    assert (begun.status, begun.attempt, begun.excused_attempts) == (JobStatus.succeeded, 2, 1)
    assert (waited.status, waited.attempt, waited.excused_attempts) == (JobStatus.succeeded, 1, 0)
