"""A job's life on a real Ray, MLflow and S3: cancelled in every phase, late, logged, and what becomes of its resources."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import psutil
import pytest
import ray
from mlflow import MlflowClient
from ray.util.state import list_actors

from registry.errors import NotFound
from registry.jobs import JobStore
from registry.objects import ObjectStore
from registry.removal import Removal
from registry.versions import VersionStore
from services.platform import Stack
from services.platform.processes import Record
from services.settings import Settings
from tav_client.schemas import FailureCode, JobPhase, JobStatus, TuningJob
from tests.eventually import eventually
from tests.tuning.conftest import follow

pytestmark = pytest.mark.slow

Actor = ray.actor.ActorHandle


def groups(*states: str) -> list[dict[str, object]]:
    return [group for group in ray.util.placement_group_table().values() if group["state"] in states]


def all_is_free() -> bool:
    return (
        not groups("PENDING", "PREPARED", "CREATED", "RESCHEDULING")
        and ray.available_resources().get("CPU") == ray.cluster_resources()["CPU"]
    )


def leaves_nothing(settings: Settings, job: TuningJob) -> bool:
    left = [i.uri for prefix in ("models/", "resume/") for i in ObjectStore(settings).list(prefix) if job.id in i.uri]
    return not left and VersionStore(settings).of_job(job.id) is None


@pytest.fixture(scope="module")
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"tuner_idle_seconds": 15.0, "cancel_grace_seconds": 20.0})


def test_a_job_cancelled_while_its_tuner_starts_frees_what_the_tuner_would_have_taken(
    scheduler: Actor, settings: Settings, submit
) -> None:
    job = submit()
    eventually(lambda: ray.get(scheduler.status.remote())["tuners"], "there is no tuner", 90)
    assert ray.get(scheduler.cancel.remote(job.id)).status == JobStatus.cancelled
    eventually(lambda: not ray.get(scheduler.status.remote())["tuners"], "a tuner stays", 90)
    eventually(all_is_free, "not everything is free", 90)
    eventually(lambda: not list((settings.work_dir / "ray-train").glob("*")), "Ray Train's notes stay", 90)
    assert (JobStore(settings).get(job.id).status, JobStore(settings).get(job.id).attempt) == (JobStatus.cancelled, 0)


@pytest.mark.parametrize(
    ("phase", "params"),
    [
        (JobPhase.preparing, {}),
        (JobPhase.tuning, {"steps": 100_000}),
        (JobPhase.inverting, {"steps": 2}),
        (JobPhase.validating, {"steps": 2}),
        (JobPhase.registering, {"steps": 2}),
    ],
)
def test_a_job_cancelled_in_a_phase_leaves_nothing_and_its_tuner_free(
    scheduler: Actor, settings: Settings, submit, finished, phase: JobPhase, params: dict[str, int]
) -> None:
    job = submit(**params)
    seen = follow(scheduler, job, lambda j: j.phase == phase or j.status.final)
    assert seen.phase == phase
    cancelled = ray.get(scheduler.cancel.remote(job.id))
    assert cancelled.cancel_requested or cancelled.status.final
    assert finished(job).status == JobStatus.cancelled
    assert JobStore(settings).get(job.id).status == JobStatus.cancelled
    assert leaves_nothing(settings, job)
    eventually(
        lambda: not any(t["job"] for t in ray.get(scheduler.status.remote())["tuners"].values()), "waited for a free tuner", 90
    )


def test_a_run_deleted_in_mlflow_while_its_job_is_queued_or_works_is_a_cancel(
    scheduler: Actor, settings: Settings, submit, finished
) -> None:
    mlflow, store = MlflowClient(settings.mlflow_tracking_uri), JobStore(settings)
    working, queued = submit(steps=100_000), submit()
    follow(scheduler, working, lambda j: j.phase == JobPhase.tuning and j.step > 2)
    for job in (working, queued):
        mlflow.delete_run(job.id)
    for job in (working, queued):
        assert finished(job).status == JobStatus.cancelled  # the scheduler is not told, it looks
        assert leaves_nothing(settings, job)
        with pytest.raises(NotFound):
            store.get(job.id)
        mlflow.restore_run(job.id)
        assert store.get(job.id).status == JobStatus.cancelled
        Removal(settings, ObjectStore(settings)).job(store.get(job.id))
    assert finished(submit(steps=2)).status == JobStatus.succeeded  # the tuner is free again


def test_a_run_deleted_just_before_its_job_registers_leaves_no_version(
    scheduler: Actor, settings: Settings, submit, finished
) -> None:
    job = submit(steps=2)
    seen = follow(scheduler, job, lambda j: j.phase in (JobPhase.validating, JobPhase.registering) or j.status.final)
    assert not seen.status.final
    MlflowClient(settings.mlflow_tracking_uri).delete_run(job.id)
    assert finished(job).status == JobStatus.cancelled
    assert leaves_nothing(settings, job)


def test_a_run_deleted_while_no_scheduler_looked_is_cancelled_and_stays_so_when_restored(
    scheduler: Actor, settings: Settings, submit
) -> None:
    mlflow, store = MlflowClient(settings.mlflow_tracking_uri), JobStore(settings)
    done = submit(steps=2)
    follow(scheduler, done, lambda j: j.status.final)
    unknown = store.create(store.request(done.id), done.clip, settings.base, "red-square")
    mlflow.delete_run(unknown.id)
    ray.get(scheduler.notify.remote())  # look at the runs
    mlflow.restore_run(unknown.id)
    assert store.get(unknown.id).status == JobStatus.cancelled
    assert ray.get(scheduler.live.remote(unknown.id)) is None


def test_a_job_that_runs_too_long_fails_and_one_that_waits_too_long_too(
    scheduler: Actor, settings: Settings, submit, finished
) -> None:
    long = submit(steps=100_000, create={"run_deadline_seconds": 4})
    follow(scheduler, long, lambda j: j.phase == JobPhase.tuning)
    late = submit(create={"queue_deadline_seconds": 1})
    for job, words in ((late, "No tuner was free"), (long, "after its first start")):
        ended = finished(job)
        assert (ended.status, ended.error.code) == (JobStatus.failed, FailureCode.deadline_exceeded), ended
        assert words in ended.error.message
        assert JobStore(settings).get(job.id).error == ended.error


def test_a_job_that_no_node_can_run_fails_for_want_of_resources(scheduler: Actor, submit, finished) -> None:
    job = submit(create={"gpu_type": "T4", "queue_deadline_seconds": 3})
    ended = finished(job)
    assert (ended.status, ended.error.code) == (JobStatus.failed, FailureCode.no_resources)
    assert "T4" in ended.error.message


def test_a_job_cancelled_while_it_waits_for_a_node_asks_for_none_any_more(scheduler: Actor, submit, finished) -> None:
    job = submit(create={"gpu_type": "A100"})
    eventually(lambda: groups("PENDING"), "there is no request for a node", 90)
    assert ray.get(scheduler.cancel.remote(job.id)).status == JobStatus.cancelled
    eventually(lambda: not groups("PENDING"), "a request for a node stays", 90)
    left = ["TrainController", "TunerSupervisor", "RayTrainWorker", "PlacementGroupCleaner"]
    eventually(
        lambda: not any(a.class_name in left for a in list_actors(filters=[("state", "=", "ALIVE")])),
        "waited for no process of it",
        90,
    )


def test_a_jobs_log_tells_of_this_job_alone(settings: Settings, submit, finished) -> None:
    one, two = finished(submit(steps=3)), finished(submit(steps=4))
    for job, other, steps in ((one, two, 3), (two, one, 4)):
        text = JobStore(settings).logs(job.id).decode()
        assert f"attempt 1 at job {job.id} begins" in text and other.id not in text
        assert f"tuning: step {steps} of {steps}, loss " in text
        assert f"registered as {job.model}/{job.version}" in text and "the job has succeeded" in text


def test_a_job_whose_clip_is_gone_tells_why_in_its_log(settings: Settings, submit, finished, scheduler: Actor) -> None:
    blocker, job = submit(steps=60), submit(content=os.urandom(500))
    ObjectStore(settings).delete(job.clip.uri)
    ended = finished(job)
    assert (ended.status, ended.error.code) == (JobStatus.failed, FailureCode.corrupt_version)
    assert ended.error.message in JobStore(settings).logs(job.id).decode()
    assert finished(blocker).status == JobStatus.succeeded


@contextmanager
def away(stack: Stack, name: str) -> Iterator[None]:
    """A part that is killed, and started again on its port."""
    path = stack.root / "run" / f"{name}.json"
    record = Record.load(path)
    assert record is not None
    leader = psutil.Process(record.pid)
    environment, family = leader.environ(), [leader, *leader.children(recursive=True)]
    for process in family:
        process.kill()
    psutil.wait_procs(family)
    try:
        yield
    finally:
        with stack.log(name).open("ab") as log:
            again = subprocess.Popen(record.command, env=environment, stdout=log, stderr=log, start_new_session=True)
        replace(record, pid=again.pid, created=psutil.Process(again.pid).create_time()).save(path)


def test_a_job_outlives_mlflow_and_s3_being_away(cluster: Stack, scheduler: Actor, submit, finished) -> None:
    job = submit(steps=60)
    follow(scheduler, job, lambda j: j.phase == JobPhase.tuning and j.step > 5)
    with away(cluster, "s3"), away(cluster, "mlflow"):
        seen = follow(scheduler, job, lambda j: j.phase == JobPhase.validating or j.status.final)
        assert seen.phase == JobPhase.validating  # its sample waits to be stored
    cluster.up(["s3", "mlflow"])  # waits until they answer
    ended = finished(job)
    assert (ended.status, ended.attempt) == (JobStatus.succeeded, 1), ended.error


def test_two_ranks_tune_stop_and_fail_together(scheduler: Actor, settings: Settings, submit, finished) -> None:
    together = {"gpus": 2}
    stopped = submit(steps=100_000, create=together)
    follow(scheduler, stopped, lambda j: j.phase == JobPhase.tuning and j.step > 2)
    broken = submit(content=os.urandom(500), create=together)
    good = submit(create=together)
    ray.get(scheduler.cancel.remote(stopped.id))
    assert finished(stopped).status == JobStatus.cancelled
    assert finished(broken).error.code == FailureCode.invalid_clip
    ended = finished(good)
    assert (ended.status, ended.attempt) == (JobStatus.succeeded, 1), ended.error
    tuners = {tuner["gpus"] for tuner in ray.get(scheduler.status.remote())["tuners"].values()}
    assert tuners == {2}


def test_tuners_end_when_there_is_no_more_work_and_everything_is_free(scheduler: Actor, submit, finished) -> None:
    finished(submit(steps=2))
    eventually(all_is_free, "not everything is free", 90)
    eventually(lambda: not ray.get(scheduler.status.remote())["tuners"], "a tuner stays", 90)
