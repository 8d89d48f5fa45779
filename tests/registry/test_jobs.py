"""A job's life is kept in its run alone."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable

import httpx
import pytest
from mlflow import MlflowClient

from registry.errors import NotFound, ObjectMissing, StorageUnavailable
from registry.jobs import JobStore
from registry.objects import ObjectStore
from registry.settings import RegistrySettings
from tav_client.schemas import ClipInfo, Failure, FailureCode, JobMemory, JobPhase, JobStatus, TuningJob, TuningJobCreate

NewJob = Callable[..., TuningJob]


def test_a_new_job_is_queued_and_comes_back_whole(new_job: NewJob, registry_settings: RegistrySettings, clip: ClipInfo) -> None:
    job = new_job(params={"steps": 150, "seed": 7}, validation_prompts=["a blue ball"], priority=3, metadata={"team": "Ü"})
    stored = JobStore(registry_settings).get(job.id)
    assert stored == job
    assert stored.status is JobStatus.queued
    assert (stored.params.steps, stored.params.seed, stored.priority) == (150, 7, 3)
    assert (stored.clip, stored.metadata, stored.validation_prompts) == (clip, {"team": "Ü"}, ["a blue ball"])
    assert abs(stored.created_at - time.time()) < 60
    assert stored.id in (stored.mlflow_url or "")


def test_a_job_that_succeeds_passes_through_its_statuses(
    new_job: NewJob, jobs: JobStore, registry_settings: RegistrySettings
) -> None:
    job = new_job()
    client = MlflowClient(registry_settings.mlflow_tracking_uri)
    assert client.get_run(job.id).info.status == "SCHEDULED"
    jobs.start(job.id, attempt=1)
    jobs.set_phase(job.id, JobPhase.tuning)
    running = jobs.get(job.id)
    assert (running.status, running.phase, running.attempt) == (JobStatus.running, JobPhase.tuning, 1)
    assert running.started_at is not None
    assert running.finished_at is None
    jobs.succeed(job.id, version=4)
    done = jobs.get(job.id)
    assert (done.status, done.phase, done.version, done.progress) == (JobStatus.succeeded, None, 4, 1.0)
    assert done.finished_at is not None
    assert client.get_run(job.id).info.status == "FINISHED"


def test_a_requeued_job_waits_again_and_keeps_its_first_start(new_job: NewJob, jobs: JobStore) -> None:
    job = new_job()
    jobs.start(job.id, attempt=1)
    first = jobs.get(job.id).started_at
    jobs.requeue(job.id, attempt=1, excused=1)
    waiting = jobs.get(job.id)
    assert (waiting.status, waiting.attempt, waiting.phase) == (JobStatus.queued, 1, None)
    assert waiting.excused_attempts == 1
    jobs.start(job.id, attempt=2)
    again = jobs.get(job.id)
    assert (again.attempt, again.started_at) == (2, first)


def test_a_failed_job_tells_why_and_keeps_the_traceback(new_job: NewJob, jobs: JobStore) -> None:
    job = new_job()
    jobs.start(job.id, attempt=1)
    jobs.fail(job.id, Failure(code=FailureCode.nan_loss, message="The loss is not finite."), traceback="Traceback …")
    failed = jobs.get(job.id)
    assert failed.status is JobStatus.failed
    assert failed.error == Failure(code=FailureCode.nan_loss, message="The loss is not finite.")
    assert jobs.read_artifact(job.id, "traceback.txt").decode() == "Traceback …"


def test_a_cancelled_job_is_final(new_job: NewJob, jobs: JobStore) -> None:
    job = new_job()
    jobs.cancel(job.id)
    cancelled = jobs.get(job.id)
    assert cancelled.status is JobStatus.cancelled
    assert cancelled.status.final
    assert job.id not in [j.id for j in jobs.open()]


def test_open_jobs_come_oldest_first(new_job: NewJob, jobs: JobStore) -> None:
    first, second, third = new_job(), new_job(), new_job()
    jobs.start(second.id, attempt=1)
    jobs.cancel(third.id)
    ids = [job.id for job in jobs.open() if job.id in {first.id, second.id, third.id}]
    assert ids == [first.id, second.id]


def test_a_job_is_left_alone_while_it_is_created_and_open_when_that_broke_off(
    new_job: NewJob, jobs: JobStore, registry_settings: RegistrySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = new_job()
    MlflowClient(registry_settings.mlflow_tracking_uri).update_run(job.id, status="RUNNING")
    assert [j.id for j in jobs.open() if j.id == job.id] == []
    later = int(time.time() * 1000) + 120_000
    monkeypatch.setattr("registry.tracking.now_ms", lambda: later)
    assert [j.status for j in jobs.open() if j.id == job.id] == [JobStatus.queued]


def test_lists_page_newest_first_and_jobs_added_meanwhile_change_nothing(new_job: NewJob, jobs: JobStore) -> None:
    model = f"ball-{uuid.uuid4().hex[:8]}"
    ids = [new_job(model).id for _ in range(5)]
    seen, cursor = [], None
    while True:
        page = jobs.list(after=cursor, limit=2, model=model)
        seen += [job.id for job in page.data]
        assert page.has_more == (page.next_cursor is not None)
        if not page.has_more:
            break
        cursor = page.next_cursor
        new_job(model)
    assert seen == ids[::-1]


def test_jobs_of_one_millisecond_are_all_listed_once(jobs: JobStore, new_job: NewJob, monkeypatch: pytest.MonkeyPatch) -> None:
    model = f"ball-{uuid.uuid4().hex[:8]}"
    now = int(time.time() * 1000)
    monkeypatch.setattr("registry.tracking.now_ms", lambda: now)
    ids = {new_job(model).id for _ in range(4)}
    seen, cursor = [], None
    for _ in range(4):
        page = jobs.list(after=cursor, limit=1, model=model)
        seen += [job.id for job in page.data]
        cursor = page.next_cursor
    assert cursor is None
    assert sorted(seen) == sorted(ids)


def test_a_list_filters_by_status(new_job: NewJob, jobs: JobStore) -> None:
    model = f"ball-{uuid.uuid4().hex[:8]}"
    queued, running = new_job(model), new_job(model)
    jobs.start(running.id, attempt=1)
    assert [j.id for j in jobs.list(status=JobStatus.queued, model=model).data] == [queued.id]
    assert [j.id for j in jobs.list(status=JobStatus.running, model=model).data] == [running.id]


def test_a_long_request_survives(new_job: NewJob, jobs: JobStore) -> None:
    metadata = {f"key{i}": "ä" * 512 for i in range(16)}
    prompts = [f"{i}" + "x" * 990 for i in range(8)]
    job = jobs.get(new_job(metadata=metadata, validation_prompts=prompts).id)
    assert (job.metadata, job.validation_prompts) == (metadata, prompts)


def test_a_repeated_request_is_found_by_its_key(jobs: JobStore, clip: ClipInfo) -> None:
    key = f"key-{uuid.uuid4().hex} it's"
    assert jobs.find(key) is None
    job = jobs.create(TuningJobCreate(caption="a ball"), clip, "offline", "ball", idempotency_key=key)
    assert jobs.find(key) == job


def test_a_job_without_its_clip_is_not_kept(jobs: JobStore, objects: ObjectStore, clip: ClipInfo) -> None:
    objects.delete(clip.uri)
    model = f"ball-{uuid.uuid4().hex[:8]}"
    with pytest.raises(ObjectMissing, match=r"is not in the bucket"):
        jobs.create(TuningJobCreate(caption="a ball"), clip, "offline", model)
    assert jobs.list(model=model).data == []


def test_metrics_arrive_in_batches(new_job: NewJob, jobs: JobStore, registry_settings: RegistrySettings) -> None:
    job = new_job()
    now = int(time.time() * 1000)
    jobs.log_metrics(job.id, [("loss", 1 / (i + 1), i, now + i) for i in range(1500)])
    history = MlflowClient(registry_settings.mlflow_tracking_uri).get_metric_history(job.id, "loss")
    assert len(history) == 1500
    assert jobs.get(job.id).loss == pytest.approx(1 / 1500)


def test_the_clip_and_logged_files_play_from_the_mlflow_server(
    new_job: NewJob, jobs: JobStore, objects: ObjectStore, registry_settings: RegistrySettings, clip: ClipInfo
) -> None:
    job = new_job()
    jobs.log_bytes(job.id, b"sample", "samples/blue.mp4")
    server = registry_settings.mlflow_tracking_uri
    url = f"{server}/get-artifact"
    source = httpx.get(url, params={"run_uuid": job.id, "path": "source.mp4"})
    assert source.status_code == 200
    assert source.content == objects.get_bytes(clip.uri)
    assert httpx.get(url, params={"run_uuid": job.id, "path": "samples/blue.mp4"}).content == b"sample"
    listed = httpx.get(f"{server}/api/2.0/mlflow/artifacts/list", params={"run_id": job.id}).json()["files"]
    assert {"source.mp4", "config.json", "samples"} <= {item["path"] for item in listed}


@pytest.mark.parametrize("job_id", ["0" * 32, "no such", "a/b?c=1", ""])
def test_an_unknown_job_is_not_found(jobs: JobStore, job_id: str) -> None:
    with pytest.raises(NotFound, match=r"There is no job .*List the tuning jobs"):
        jobs.get(job_id)


def test_an_unknown_cursor_is_not_found(jobs: JobStore) -> None:
    with pytest.raises(NotFound, match="Start the list again") as caught:
        jobs.list(after="nowhere")
    assert caught.value.code == "cursor_not_found"


@pytest.mark.parametrize("name", ["../x", "a//b", "", "/etc/passwd"])
def test_an_artifact_stays_in_its_run(new_job: NewJob, jobs: JobStore, name: str) -> None:
    job = new_job()
    with pytest.raises(ValueError, match="not the name of an artifact"):
        jobs.log_bytes(job.id, b"", name)


def test_a_deleted_run_takes_no_change_but_its_end_and_says_that_when_it_is_restored(
    new_job: NewJob, jobs: JobStore, registry_settings: RegistrySettings
) -> None:
    client, failure = MlflowClient(registry_settings.mlflow_tracking_uri), Failure(code="internal", message="It broke.")
    ends = {
        JobStatus.cancelled: lambda job_id: jobs.cancel(job_id),
        JobStatus.failed: lambda job_id: jobs.fail(job_id, failure, "a traceback"),
        JobStatus.succeeded: lambda job_id: jobs.succeed(job_id, 3),
    }
    for status, end in ends.items():
        job = new_job()
        client.delete_run(job.id)
        assert job.id in jobs.deleted()
        for change in (
            lambda job_id: jobs.start(job_id, 1),
            lambda job_id: jobs.requeue(job_id, 1),
            lambda job_id: jobs.set_phase(job_id, JobPhase.tuning),
            lambda job_id: jobs.request_cancel(job_id),
            lambda job_id: jobs.log_metrics(job_id, [("loss", 1.0, 1, 1)]),
            lambda job_id: jobs.log_bytes(job_id, b"x", "x.txt"),
        ):
            with pytest.raises(NotFound, match="There is no job"):
                change(job.id)
        end(job.id)
        with pytest.raises(NotFound):
            jobs.get(job.id)
        assert job.id not in jobs.deleted()
        client.restore_run(job.id)
        assert jobs.get(job.id).status is status


def test_an_mlflow_that_is_down_is_said_to_be(registry_settings: RegistrySettings) -> None:
    nowhere = registry_settings.model_copy(update={"mlflow_tracking_uri": "http://127.0.0.1:9"})
    with pytest.raises(StorageUnavailable, match=r"MLflow does not answer .*Check that it runs"):
        JobStore(nowhere).get("0" * 32)


def test_a_job_accepted_within_other_bounds_stays_readable_and_listed(
    new_job: NewJob, jobs: JobStore, registry_settings: RegistrySettings
) -> None:
    new = new_job(params={"steps": 150})
    client = MlflowClient(registry_settings.mlflow_tracking_uri)
    request = json.loads(client.get_run(new.id).data.tags["tav.request"])
    earlier = request | {"priority": 10**6, "params": {"steps": 10**9, "seed": 2**65, "memory": {"zero_stage": 3}}}
    client.set_tag(new.id, "tav.request", json.dumps(earlier))
    [listed] = [job for job in jobs.list(model=new.model).data if job.id == new.id]
    assert (listed.priority, listed.params.steps, listed.params.seed) == (10**6, 10**9, 2**65)
    assert listed.params.memory == JobMemory(zero_stage=3)
    assert TuningJob.model_validate_json(listed.model_dump_json()) == listed, "clients read it too"
