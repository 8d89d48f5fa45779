"""Tenants, retries, deletions and batches over HTTP, on real storage."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from mlflow import MlflowClient

from registry.settings import RegistrySettings
from services.api.keys import KeyFile, make_key
from tav_client.schemas import Failure, FailureCode, JobStatus, TuningJob, VideoCreate
from tests.api.conftest import Gateway
from tests.api.test_jobs import caption

(A_KEY, A_RECORD), (B_KEY, B_RECORD) = make_key("alice"), make_key("bob")
ALICE, BOB = {"Authorization": f"Bearer {A_KEY}"}, {"Authorization": f"Bearer {B_KEY}"}


@pytest.fixture
def keys_file(tmp_path: Path, registry_settings: RegistrySettings) -> str:
    """Alice's and Bob's keys."""
    place = str(tmp_path / "api-keys.json")
    KeyFile(place, registry_settings).write({record.id: record for record in (A_RECORD, B_RECORD)})
    return place


@pytest.fixture
def two_tenants(start_gateway: Callable[..., Gateway], keys_file: str) -> Gateway:
    return start_gateway(api_keys_file=keys_file)


def submitted(gateway: Gateway, mp4: bytes, headers: dict[str, str] | None = None, **fields: Any) -> TuningJob:
    answer = gateway.submit(mp4, caption(**fields), **(headers or {}))
    assert answer.status_code == 201, answer.text
    return TuningJob.model_validate(answer.json())


def status_and_code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def test_a_tenant_sees_and_changes_its_own_jobs_only(two_tenants: Gateway, mp4: bytes) -> None:
    http, model = two_tenants.http, f"ball-{uuid.uuid4().hex[:8]}"
    job = submitted(two_tenants, mp4, ALICE, model=model, batch="b1")
    assert job.tenant == "alice"
    path = f"/v1/tuning-jobs/{job.id}"
    for method, call in (("GET", path), ("GET", f"{path}/events"), ("GET", f"{path}/logs"), ("DELETE", path)):
        assert status_and_code(http.request(method, call, headers=BOB)) == (404, "job_not_found")
    for call in (f"{path}/cancel", f"{path}/retry"):
        assert status_and_code(http.post(call, headers=BOB)) == (404, "job_not_found")
    assert status_and_code(http.get("/v1/batches/b1", headers=BOB)) == (404, "batch_not_found")
    for who, seen in ((ALICE, [job.id]), (BOB, [])):
        listed = http.get("/v1/tuning-jobs", params={"model": model}, headers=who).json()["data"]
        assert [one["id"] for one in listed] == seen
    assert http.get(path, headers=ALICE).status_code == 200


def test_two_tenants_may_use_the_same_idempotency_key(two_tenants: Gateway, mp4: bytes) -> None:
    key, job_request = str(uuid.uuid4()), caption()
    answers = [two_tenants.submit(mp4, job_request, idempotency_key=key, **who) for who in (ALICE, BOB, ALICE)]
    assert [answer.status_code for answer in answers] == [201, 201, 200]
    assert answers[0].json()["id"] == answers[2].json()["id"] != answers[1].json()["id"]


def test_a_tenant_with_too_many_waiting_jobs_is_asked_to_wait(
    start_gateway: Callable[..., Gateway], keys_file: str, mp4: bytes
) -> None:
    gateway = start_gateway(
        api_keys_file=keys_file,
        max_queued_per_tenant=2,
        experiment=f"limits-{uuid.uuid4().hex[:8]}",
    )
    for _ in range(2):
        submitted(gateway, mp4, ALICE)
    refused = gateway.submit(mp4, caption(), **ALICE)
    assert status_and_code(refused) == (429, "too_many_jobs") and refused.headers["retry-after"]
    submitted(gateway, mp4, BOB)


@pytest.mark.parametrize(("fields", "words"), [({"gpus": 9}, "8 GPUs at most"), ({"gpu_type": "T4"}, "it has A100")])
def test_resources_that_the_service_has_not_are_refused(
    start_gateway: Callable[..., Gateway], mp4: bytes, fields: dict[str, Any], words: str
) -> None:
    answer = start_gateway(gpu_types=["A100"]).submit(mp4, caption(**fields))
    assert status_and_code(answer) == (422, "invalid_request") and words in answer.json()["detail"]


def test_jobs_are_found_by_batch_and_by_metadata(gateway: Gateway, mp4: bytes) -> None:
    batch = f"b-{uuid.uuid4().hex[:8]}"
    red = submitted(gateway, mp4, batch=batch, metadata={"colour": "red", "by": "it's me"})
    blue = submitted(gateway, mp4, batch=batch, metadata={"colour": "blue", "by": "it's me"})

    def job_ids(**query: str) -> list[str]:
        return [job["id"] for job in gateway.http.get("/v1/tuning-jobs", params={"batch": batch, **query}).json()["data"]]

    assert job_ids() == [blue.id, red.id]
    assert job_ids(**{"metadata.colour": "red"}) == [red.id]
    assert job_ids(**{"metadata.colour": "red", "metadata.by": "it's me"}) == [red.id]
    assert job_ids(**{"metadata.colour": "green"}) == []


def test_a_batch_is_counted_and_cancelled_as_a_whole(gateway: Gateway, mp4: bytes) -> None:
    batch = f"b-{uuid.uuid4().hex[:8]}"
    jobs = [submitted(gateway, mp4, batch=batch) for _ in range(3)]
    gateway.backends.jobs.start(jobs[0].id, 1)
    gateway.backends.jobs.fail(jobs[0].id, Failure(code=FailureCode.nan_loss, message="The loss is not finite."))
    counted = gateway.http.get(f"/v1/batches/{batch}").json()
    assert counted == {"id": batch, "object": "batch", "total": 3, "counts": {"queued": 2, "failed": 1}, "finished": False}
    ended = gateway.http.post(f"/v1/batches/{batch}/cancel").json()
    assert (ended["counts"], ended["finished"]) == ({"cancelled": 2, "failed": 1}, True)
    assert status_and_code(gateway.http.get("/v1/batches/nobody-knows-it")) == (404, "batch_not_found")
    assert status_and_code(gateway.http.get("/v1/batches/two%20words")) == (422, "invalid_request")


def test_a_failed_job_is_retried_as_a_new_one_once_per_key(gateway: Gateway, mp4: bytes) -> None:
    job = submitted(gateway, mp4, params={"steps": 7}, metadata={"who": "me"}, priority=3)
    path = f"/v1/tuning-jobs/{job.id}/retry"
    assert status_and_code(gateway.http.post(path)) == (409, "job_not_retryable")
    gateway.backends.jobs.fail(job.id, Failure(code=FailureCode.worker_lost, message="It died."))
    key = {"Idempotency-Key": str(uuid.uuid4())}
    first, again = gateway.http.post(path, headers=key), gateway.http.post(path, headers=key)
    assert (first.status_code, again.status_code) == (201, 200)
    retry = TuningJob.model_validate(first.json())
    assert first.headers["location"].endswith(retry.id) and again.json()["id"] == retry.id
    assert (retry.retry_of, retry.status, retry.attempt) == (job.id, JobStatus.queued, 0)
    for name in ("caption", "clip", "model", "params", "metadata", "priority", "base", "tenant"):
        assert getattr(retry, name) == getattr(job, name)
    assert gateway.backends.jobs.get(job.id).status is JobStatus.failed


def test_the_log_of_a_job_is_its_attempts_one_after_the_other(gateway: Gateway, mp4: bytes) -> None:
    job = submitted(gateway, mp4)
    path = f"/v1/tuning-jobs/{job.id}/logs"
    assert gateway.http.get(path).text == ""
    gateway.backends.jobs.log_bytes(job.id, b"first\n", "logs/attempt-001.txt")
    gateway.backends.jobs.log_bytes(job.id, "zweite ü\n".encode(), "logs/attempt-002.txt")
    answer = gateway.http.get(path)
    assert (answer.text, answer.headers["content-type"]) == ("first\nzweite ü\n", "text/plain; charset=utf-8")


def test_a_followed_log_goes_on_until_the_job_has_ended(gateway: Gateway, mp4: bytes) -> None:
    job = submitted(gateway, mp4)
    jobs = gateway.backends.jobs
    jobs.log_bytes(job.id, b"one\n", "logs/attempt-001.txt")
    with gateway.http.stream("GET", f"/v1/tuning-jobs/{job.id}/logs", params={"follow": "true"}) as stream:
        chunks = stream.iter_text()
        assert next(chunks) == "one\n"
        jobs.log_bytes(job.id, b"one\ntwo\n", "logs/attempt-001.txt")
        jobs.cancel(job.id)
        assert "".join(chunks) == "two\n"


def test_a_deleted_job_takes_its_version_videos_objects_and_run_with_it(
    gateway: Gateway, version: Any, registry_settings: RegistrySettings
) -> None:
    backends, job = gateway.backends, gateway.backends.jobs.get(version.job_id)
    video = backends.videos.create(VideoCreate(model=version.name, prompt="a blue ball"), version)
    backends.videos.complete(video.id, b"bytes", 1.0, (64, 64))
    before = {item.uri for item in backends.objects.list("")}
    assert gateway.http.delete(f"/v1/tuning-jobs/{job.id}").json() == {
        "id": job.id,
        "object": "tuning_job.deleted",
        "deleted": True,
    }
    left = {item.uri for item in backends.objects.list("")}
    gone = before - left
    assert job.clip.uri in gone
    assert {uri.rpartition("/")[2] for uri in gone} >= {"source.mp4", "delta.safetensors", "video.mp4", "config.json"}
    assert not [uri for uri in left if job.id in uri or video.id in uri]
    client = MlflowClient(registry_settings.mlflow_tracking_uri)
    assert [client.get_run(run).info.lifecycle_stage for run in (job.id, video.id)] == ["deleted", "deleted"]
    for path, code in (
        (f"/v1/tuning-jobs/{job.id}", "job_not_found"),
        (f"/v1/videos/{video.id}", "video_not_found"),
        (f"/v1/models/{version.name}/versions/1", "version_not_found"),
    ):
        assert status_and_code(gateway.http.get(path)) == (404, code)
    assert status_and_code(gateway.http.delete(f"/v1/tuning-jobs/{job.id}")) == (404, "job_not_found")


def test_an_open_job_is_not_deleted_and_a_shared_clip_stays(gateway: Gateway, mp4: bytes) -> None:
    job, other = submitted(gateway, mp4), submitted(gateway, mp4)
    assert status_and_code(gateway.http.delete(f"/v1/tuning-jobs/{job.id}")) == (409, "job_not_deletable")
    gateway.http.post(f"/v1/tuning-jobs/{job.id}/cancel")
    assert gateway.http.delete(f"/v1/tuning-jobs/{job.id}").status_code == 200
    assert gateway.backends.objects.get_bytes(other.clip.uri) == mp4
