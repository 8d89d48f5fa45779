"""No mistake of a caller is answered as an outage, and no answer tells where MLflow and S3 are."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from mlflow import MlflowClient

from services.runtime import without_addresses
from services.sampling.errors import SamplerLost
from services.settings import Settings
from tav_client.schemas import ModelVersion
from tests.api.conftest import Gateway

ODD = ["é", "\0", "a'b", "a\"'b", "a\\", "`", "%00", "\n", "x" * 400, "🎈", " ", "a;b--", "‮"]


def check_refused(answer: httpx.Response, settings: Settings) -> None:
    """A mistake of the caller's, told without inner addresses."""
    assert 400 <= answer.status_code < 500, f"{answer.request.method} {answer.request.url} {answer.text}"
    inner = [str(address).partition("://")[2] for address in (settings.mlflow_tracking_uri, settings.s3_endpoint_url)]
    assert not any(address in answer.text for address in inner), answer.text


@pytest.mark.parametrize("text", ODD)
def test_odd_ids_names_aliases_and_cursors_are_refused(gateway: Gateway, version: ModelVersion, text: str) -> None:
    odd, settings = quote(text, safe=""), gateway.backends.settings
    for method, path in (
        ("GET", f"tuning-jobs/{odd}"),
        ("POST", f"tuning-jobs/{odd}/cancel"),
        ("DELETE", f"tuning-jobs/{odd}"),
        ("GET", f"tuning-jobs/{odd}/logs"),
        ("GET", f"tuning-jobs?after={odd}"),
        ("GET", f"batches/{odd}"),
        ("GET", f"models/{odd}"),
        ("GET", f"models/{odd}/versions/1"),
        ("DELETE", f"models/{odd}"),
        ("DELETE", f"models/{version.name}/aliases/{odd}"),
        ("GET", f"models?after={odd}"),
        ("GET", f"videos/{odd}"),
        ("GET", f"videos/{odd}/content"),
        ("DELETE", f"videos/{odd}"),
        ("GET", f"videos?after={odd}"),
    ):
        check_refused(gateway.http.request(method, f"/v1/{path}"), settings)
    if not text.isascii() or "\0" in text or len(text) > 64:
        check_refused(gateway.http.put(f"/v1/models/{version.name}/aliases/{odd}", json={"version": 1}), settings)
    labels = gateway.http.get("/v1/tuning-jobs", params={"metadata.note": text})
    assert labels.status_code in (200, 422) and (labels.status_code == 422 or labels.json()["data"] == [])
    check_refused(gateway.http.get("/v1/tuning-jobs", params={f"metadata.{text}": "value"}), settings)


@pytest.mark.parametrize(
    "fields", [{"caption": "a\0b"}, {"caption": "a ball", "metadata": {"note": "\0"}}, {"caption": "a ball", "batch": "a\0"}]
)
def test_a_job_whose_texts_no_database_keeps_is_refused(gateway: Gateway, mp4: bytes, fields: dict[str, Any]) -> None:
    before = gateway.contents()[0]
    check_refused(gateway.submit(mp4, {**fields, "params": {"num_frames": 8}}), gateway.backends.settings)
    assert gateway.contents()[0] == before


def test_a_video_whose_prompt_no_database_keeps_is_refused(gateway: Gateway, version: ModelVersion) -> None:
    for fields in ({"prompt": "a\0b"}, {"prompt": "\0"}):
        for path in ("/v1/videos", "/v1/videos/sync"):
            check_refused(gateway.http.post(path, json={"model": version.name, **fields}), gateway.backends.settings)
    created = gateway.http.post("/v1/videos", json={"model": version.name, "prompt": "a ball", "negative_prompt": "a\0b"})
    assert created.status_code in (200, 422), created.text


@pytest.mark.parametrize(
    "key",
    ["../../etc/passwd", "uploads/../clips/x", "uploads/./x", "a\0b", "a\nb", "x" * 1100, "%2e%2e/x", "é", "a//b", " ", "?x#y"],
)
def test_a_clip_uri_that_is_none_or_names_nothing_is_refused(gateway: Gateway, key: str) -> None:
    before = gateway.contents()[0]
    job_request = {"caption": "a ball", "clip_uri": f"s3://{gateway.backends.settings.s3_bucket}/{key}"}
    check_refused(gateway.http.post("/v1/tuning-jobs", json=job_request), gateway.backends.settings)
    assert gateway.contents()[0] == before


def test_an_outage_is_answered_without_inner_addresses(registry_settings: Settings, start_gateway: Any) -> None:
    for broken in (
        {"mlflow_tracking_uri": "http://127.0.0.1:9", "mlflow_max_retries": 0},
        {"s3_endpoint_url": "http://127.0.0.1:9"},
    ):
        gateway = start_gateway(**broken)
        for path in ("models", "tuning-jobs", "videos", f"tuning-jobs/{'0' * 32}"):
            answer = gateway.http.get(f"/v1/{path}")
            if "mlflow_tracking_uri" in broken:
                assert (answer.status_code, answer.json()["code"]) == (503, "storage_unavailable"), answer.text
            assert "127.0.0.1:9" not in answer.text
        uri = f"s3://{registry_settings.s3_bucket}/uploads/x"
        answer = gateway.http.post("/v1/tuning-jobs", json={"caption": "a ball", "clip_uri": uri})
        assert (answer.status_code, "127.0.0.1:9" in answer.text) == (503 if "s3_endpoint_url" in broken else 422, False), (
            answer.text
        )


def test_a_job_is_not_deleted_while_an_alias_or_a_video_needs_its_version(gateway: Gateway, version: ModelVersion) -> None:
    job, alias = f"/v1/tuning-jobs/{version.job_id}", f"/v1/models/{version.name}/aliases/production"
    gateway.http.put(alias, json={"version": 1})
    refused = gateway.http.delete(job)
    assert (refused.status_code, refused.json()["code"]) == (409, "version_in_use") and "@production" in refused.json()[
        "detail"
    ]
    gateway.http.delete(alias)
    gateway.sampler.gate.clear()
    video = gateway.http.post("/v1/videos", json={"model": version.name, "prompt": "a blue ball"}).json()
    refused = gateway.http.delete(job)
    assert (refused.status_code, refused.json()["code"]) == (409, "version_in_use") and "A video of" in refused.json()["detail"]
    assert gateway.http.delete(f"/v1/videos/{video['id']}").status_code == 200
    assert gateway.http.delete(job).status_code == 200
    assert gateway.backends.jobs.list(model=version.name).data == []


def test_a_video_whose_run_is_deleted_in_mlflow_is_cancelled_and_says_so_when_restored(
    gateway: Gateway, version: ModelVersion
) -> None:
    gateway.sampler.gate.clear()
    video = gateway.http.post("/v1/videos", json={"model": version.name, "prompt": "a blue ball"}).json()
    mlflow = MlflowClient(gateway.backends.settings.mlflow_tracking_uri)
    with gateway.http.stream("GET", f"/v1/videos/{video['id']}/events") as stream:
        mlflow.delete_run(video["id"])
        gateway.sampler.gate.set()
        last = [json.loads(line.removeprefix("data: ")) for line in stream.iter_lines() if line.startswith("data: ")][-1]
    assert (last["status"], last["error"]["code"]) == ("failed", "cancelled")
    assert gateway.http.get(f"/v1/videos/{video['id']}").status_code == 404
    mlflow.restore_run(video["id"])
    restored = gateway.http.get(f"/v1/videos/{video['id']}").json()
    assert (restored["status"], restored["error"]["code"]) == ("failed", "cancelled")
    assert gateway.http.delete(f"/v1/videos/{video['id']}").status_code == 200


def test_an_estimate_of_a_base_with_an_odd_name_is_refused(gateway: Gateway) -> None:
    for text in ODD:
        check_refused(gateway.http.post("/v1/estimates", json={"base": text}), gateway.backends.settings)


def test_a_lost_sampler_is_told_without_the_machine_it_ran_on(start_gateway: Any, version: ModelVersion) -> None:
    gateway = start_gateway(max_attempts=1)
    gateway.sampler.reply = SamplerLost(
        "ActorDiedError: it died.\nip: 10.1.2.3, node at http://head.internal:8265 and [fd00::2]:6379"
    )
    answer = gateway.http.post("/v1/videos/sync", json={"model": version.name, "prompt": "a blue ball"})
    assert (answer.status_code, answer.json()["code"]) == (503, "worker_lost")
    assert not any(part in answer.text for part in ("10.1.2.3", "head.internal", "fd00", "8265", "6379"))


@pytest.mark.parametrize("text", ["s3://tav/a.mp4 is missing", "12:30:05 step 3 of 4", "torch 2.9.1.post1", "a::b", "seed: 7"])
def test_what_is_no_address_stays(text: str) -> None:
    assert without_addresses(text) == text
