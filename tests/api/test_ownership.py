"""Whatever a tenant does with another's ids, names, cursors, keys and addresses, it is as if there were none of them."""

from __future__ import annotations

import json
import logging
import tempfile
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.routing import iter_route_contexts

from registry.registration import VersionInfo
from registry.settings import RegistrySettings
from services.api.app import create_app
from services.api.keys import KeyFile, make_key
from tav_client.schemas import ModelVersion, TuningJob, Upload
from tests.api.conftest import Gateway, moving_square
from tests.api.test_jobs import caption

KEYS = {who: make_key(who, operator=who == "staff") for who in ("alice", "bob", "default", "staff")}
HEADERS = {who: {"Authorization": f"Bearer {key}"} for who, (key, _) in KEYS.items()}
INFO = VersionInfo(base="offline", base_fingerprint="f" * 64, caption="a ball", num_frames=8, size=(64, 64))


@dataclass
class Resources:
    """A tenant's resources, one of each kind."""

    gateway: Gateway
    tenant: str
    job: TuningJob
    version: ModelVersion
    video_id: str
    idempotency_key: str
    upload: Upload

    @property
    def model(self) -> str:
        return self.job.model

    @property
    def ids(self) -> dict[str, str]:
        """Return the ids by the parameter's name in paths."""
        return {
            "job_id": self.job.id,
            "batch": self.job.batch or "",
            "name": f"{self.tenant}~{self.model}",
            "version": "1",
            "alias": "production",
            "video_id": self.video_id,
        }

    def as_owner_sees(self) -> list[Any]:
        """Return the responses to the owner's requests for all of them."""
        paths = [
            f"tuning-jobs/{self.job.id}",
            f"batches/{self.job.batch}",
            f"models/{self.model}",
            f"models/{self.model}/versions/1",
            f"videos/{self.video_id}",
            f"videos/{self.video_id}/content",
        ]
        answers = [self.gateway.http.get(f"/v1/{path}", headers=HEADERS[self.tenant]) for path in paths]
        assert [answer.status_code for answer in answers] == [200] * len(paths)
        return [answer.content for answer in answers]


@pytest.fixture
def keys_file(tmp_path: Path, registry_settings: RegistrySettings) -> str:
    place = str(tmp_path / "api-keys.json")
    KeyFile(place, registry_settings).write({record.id: record for _, record in KEYS.values()})
    return place


@pytest.fixture
def gateway(start_gateway: Callable[..., Gateway], keys_file: str) -> Gateway:
    """A gateway with keys of three tenants, one of them called `default`, and of an operator."""
    return start_gateway(api_keys_file=keys_file, experiment=f"ownership-{uuid.uuid4().hex[:8]}")


def succeed(gateway: Gateway, job: TuningJob) -> ModelVersion:
    """Let the job succeed; return its version."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("delta.safetensors", "latents.safetensors", "config.json"):
            (Path(folder) / name).write_bytes(b"{}")
        version = gateway.backends.versions.register(job, Path(folder), INFO)
    gateway.backends.jobs.start(job.id, 1)
    gateway.backends.jobs.succeed(job.id, version.version)
    return version


def create_resources(gateway: Gateway, tenant: str, model: str) -> Resources:
    """Create one resource of each kind, by HTTP as far as no GPU is needed."""
    http, headers, key = gateway.http, HEADERS[tenant], uuid.uuid4().hex
    clip = moving_square(seed=uuid.uuid4().int % 2**32)
    answer = gateway.submit(clip, caption(model=model, batch=f"b-{uuid.uuid4().hex[:8]}"), idempotency_key=key, **headers)
    assert answer.status_code == 201, answer.text
    job = TuningJob.model_validate(answer.json())
    version = succeed(gateway, job)
    set_alias = http.put(f"/v1/models/{model}/aliases/production", json={"version": 1}, headers=headers)
    assert set_alias.status_code == 200, set_alias.text
    request = {"model": f"{model}@production", "prompt": "a blue ball"}
    video = http.post("/v1/videos", json=request, headers={**headers, "Idempotency-Key": key}).json()
    with http.stream("GET", f"/v1/videos/{video['id']}/events", headers=headers) as stream:
        assert '"completed"' in list(stream.iter_lines())[-2]
    upload = Upload.model_validate(http.post("/v1/uploads", json={"bytes": len(clip)}, headers=headers).json())
    httpx.put(upload.url, content=clip, headers=upload.headers).raise_for_status()
    return Resources(gateway, tenant, job, version, video["id"], key, upload)


def model_name() -> str:
    return f"ball-{uuid.uuid4().hex[:8]}"


def status_and_code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


BODIES = {("PUT", "/v1/models/{name}/aliases/{alias}"): {"version": 1}, ("PATCH", "/v1/models/{name}"): {"shared": True}}
"""Of calls with an id in their path."""

WITHOUT_IDS = {
    *(("GET", f"/v1/{kind}") for kind in ("bases", "tuning-jobs", "models", "videos")),
    *(("POST", f"/v1/{kind}") for kind in ("tuning-jobs", "videos", "videos/sync", "uploads", "estimates")),
}
"""Each is tried below with another's cursors, references, keys and addresses."""


def calls(gateway: Gateway) -> set[tuple[str, str]]:
    """Every method and path of the interface."""
    routes = [(route.methods or set(), route.path or "") for route in iter_route_contexts(create_app(gateway.backends).routes)]
    return {(method, path) for methods, path in routes for method in methods if path.startswith("/v1/")}


@pytest.mark.parametrize("who", ["bob", "default"])
def test_every_call_with_anothers_ids_is_answered_as_if_there_were_none(gateway: Gateway, who: str) -> None:
    mine = create_resources(gateway, "alice", model_name())
    before = mine.as_owner_sees()
    absent = {"job_id": "0" * 32, "batch": "b-nobodys", "name": f"alice~{model_name()}", "video_id": "1" * 32}
    plain = mine.ids | {"name": mine.model}
    with_ids = {(method, path) for method, path in calls(gateway) if "{" in path}
    assert calls(gateway) - with_ids == WITHOUT_IDS, "say below how another's resources may be named in a new call"
    assert len(with_ids) > 15
    for method, path in sorted(with_ids):
        for named in (mine.ids, plain):
            answers = []
            for ids in (named, mine.ids | absent):
                answer = gateway.http.request(method, path.format(**ids), json=BODIES.get((method, path)), headers=HEADERS[who])
                text = answer.text
                for name, value in ids.items():
                    text = text.replace(value, name) if value not in ("1", "production") else text
                answers.append((answer.status_code, text))
            assert answers[0] == answers[1] and answers[0][0] == 404, (method, path, answers)
    assert mine.as_owner_sees() == before


def test_no_list_shows_anothers_things_and_no_cursor_of_anothers_is_taken(gateway: Gateway) -> None:
    mine = create_resources(gateway, "alice", model_name())
    secrets = [mine.job.id, mine.video_id, mine.model]
    for path, cursor in (("tuning-jobs", mine.job.id), ("videos", mine.video_id), ("models", None)):
        for filters in ({}, {"model": mine.model}, {"batch": mine.job.batch}, {"order": "asc"}, {"shared": "true"}):
            listed = gateway.http.get(f"/v1/{path}", params={"limit": 100, **filters}, headers=HEADERS["bob"])
            assert listed.status_code == 200 and not any(secret in listed.text for secret in secrets), (path, filters)
        if cursor is not None:
            refused = [
                gateway.http.get(f"/v1/{path}", params={"after": after}, headers=HEADERS["bob"]) for after in (cursor, "0" * 32)
            ]
            assert [status_and_code(answer) for answer in refused] == [(422, "invalid_request")] * 2
            assert refused[0].text.replace(cursor, "") == refused[1].text.replace("0" * 32, "")
    own = gateway.http.get("/v1/models", params={"limit": 100}, headers=HEADERS["alice"]).json()["data"]
    assert mine.model in [model["name"] for model in own]


@pytest.mark.parametrize("call", ["/v1/videos", "/v1/videos/sync"])
def test_a_video_is_drawn_of_ones_own_model_alone(gateway: Gateway, call: str) -> None:
    model = model_name()
    create_resources(gateway, "alice", model)
    drawn = len(gateway.sampler.requests)
    for ref in (model, f"{model}/1", f"{model}@production", *(f"alice~{model}{rest}" for rest in ("", "/1", "@production"))):
        answer = gateway.http.post(call, json={"model": ref, "prompt": "a blue ball"}, headers=HEADERS["bob"])
        assert status_and_code(answer) == (404, "model_not_found"), ref
    assert len(gateway.sampler.requests) == drawn


def test_models_of_one_name_do_not_meet(gateway: Gateway) -> None:
    model = model_name()
    alices, bobs, plain = (create_resources(gateway, who, model) for who in ("alice", "bob", "default"))
    assert [one.version.name for one in (alices, bobs, plain)] == [f"alice~{model}", f"bob~{model}", model]
    for one in (alices, bobs, plain):
        headers = HEADERS[one.tenant]
        shown = gateway.http.get(f"/v1/models/{model}/versions/1", headers=headers).json()
        assert (shown["name"], shown["job_id"]) == (model, one.job.id)
        gateway.http.post("/v1/videos/sync", json={"model": model, "prompt": "a blue ball"}, headers=headers)
        assert (gateway.sampler.requests[-1][1].name, gateway.sampler.requests[-1][1].job_id) == (one.version.name, one.job.id)
        assert gateway.http.get(f"/v1/videos/{one.video_id}", headers=headers).json()["model_version"] == f"{model}/1"
    gateway.http.delete(f"/v1/models/{model}", headers=HEADERS["bob"]).raise_for_status()
    alices.as_owner_sees(), plain.as_owner_sees()


def test_an_idempotency_key_of_anothers_makes_a_video_of_ones_own(gateway: Gateway) -> None:
    model = model_name()
    alices, bobs = (create_resources(gateway, who, model) for who in ("alice", "bob"))
    request = {"model": f"{model}@production", "prompt": "a blue ball"}
    keys = {"Idempotency-Key": alices.idempotency_key}
    again = gateway.http.post("/v1/videos", json=request, headers={**HEADERS["alice"], **keys}).json()
    response = gateway.http.post("/v1/videos", json=request, headers={**HEADERS["bob"], **keys}).json()
    assert again["id"] == alices.video_id and response["id"] not in (alices.video_id, bobs.video_id)
    assert (again["tenant"], response["tenant"]) == ("alice", "bob")


def test_a_shared_model_is_sampled_by_others_and_changed_by_its_owner_alone(gateway: Gateway) -> None:
    mine, http = create_resources(gateway, "alice", model_name()), gateway.http
    alice, bob, name = HEADERS["alice"], HEADERS["bob"], f"alice~{mine.model}"
    shared = http.patch(f"/v1/models/{mine.model}", json={"shared": True}, headers=alice).json()
    assert (shared["name"], shared["tenant"], shared["shared"]) == (mine.model, "alice", True)
    seen = http.get(f"/v1/models/{name}", headers=bob).json()
    assert (seen["name"], seen["tenant"], seen["shared"], seen["aliases"]) == (name, "alice", True, {"production": 1})
    assert name in [one["name"] for one in http.get("/v1/models?shared=true&limit=100", headers=bob).json()["data"]]
    assert name not in [one["name"] for one in http.get("/v1/models?limit=100", headers=bob).json()["data"]]
    assert http.get(f"/v1/models/{mine.model}", headers=bob).status_code == 404  # of that name, bob has none
    for ref in (name, f"{name}/1", f"{name}@production"):
        response = http.post("/v1/videos/sync", json={"model": ref, "prompt": "a blue ball"}, headers=bob)
        assert (response.status_code, response.headers["x-tav-model-version"]) == (200, f"{name}/1"), response.text
    video = http.get("/v1/videos", params={"model": name}, headers=bob).json()["data"][0]
    assert (video["tenant"], video["model_version"]) == ("bob", f"{name}/1")
    assert http.get(f"/v1/videos/{video['id']}", headers=alice).status_code == 404  # bob's videos are bob's
    for method, path in calls(gateway):
        if method in ("PUT", "PATCH", "DELETE") and path.startswith("/v1/models/"):
            answer = http.request(method, path.format(**mine.ids), json=BODIES.get((method, path)), headers=bob)
            assert status_and_code(answer) == (403, "forbidden"), (method, path)
    for path in (f"/v1/tuning-jobs/{mine.job.id}", f"/v1/videos/{mine.video_id}"):
        assert http.get(path, headers=bob).status_code == 404  # the model is shared, not what it was made by
    http.patch(f"/v1/models/{mine.model}", json={"shared": False}, headers=alice).raise_for_status()
    refused = http.post("/v1/videos", json={"model": name, "prompt": "a blue ball"}, headers=bob)
    assert status_and_code(refused) == (404, "model_not_found")


def test_the_default_tenants_models_are_shared_by_its_name(gateway: Gateway) -> None:
    mine = create_resources(gateway, "default", model_name())
    name = f"default~{mine.model}"
    assert gateway.http.get(f"/v1/models/{name}", headers=HEADERS["bob"]).status_code == 404
    gateway.http.patch(f"/v1/models/{mine.model}", json={"shared": True}, headers=HEADERS["default"]).raise_for_status()
    seen = gateway.http.get(f"/v1/models/{name}/versions/1", headers=HEADERS["bob"]).json()
    assert (seen["name"], seen["version"]) == (name, 1)
    missing = gateway.http.get(f"/v1/models/{name}/versions/7", headers=HEADERS["bob"])
    assert status_and_code(missing) == (404, "version_not_found") and f"{name}/7" in missing.json()["detail"]


def test_a_missing_version_is_named_as_its_owner_calls_it(gateway: Gateway) -> None:
    mine = create_resources(gateway, "alice", model_name())
    for path in (f"{mine.model}/versions/7", f"nobody-{mine.model}"):
        answer = gateway.http.get(f"/v1/models/{path}", headers=HEADERS["alice"])
        assert answer.status_code == 404 and "alice" not in answer.text, answer.text


# clip_uri


def submitted(gateway: Gateway, who: str, uri: str) -> httpx.Response:
    job = {"caption": "a square", "clip_uri": uri, "params": {"num_frames": 8}}
    return gateway.http.post("/v1/tuning-jobs", json=job, headers=HEADERS[who])


def test_another_tenants_objects_are_no_clips_and_nothing_tells_that_they_are_there(gateway: Gateway) -> None:
    mine = create_resources(gateway, "alice", model_name())
    gateway.backends.objects.put_bytes(b"{}", "operator/secret.json")
    objects = [item.uri for item in gateway.backends.objects.list("")]
    ours = [uri for uri in objects if mine.job.id in uri or mine.video_id in uri]
    assert len(ours) >= 5 and any(uri.endswith("source.mp4") for uri in ours)
    for uri in (*ours, mine.upload.clip_uri, mine.job.clip.uri, gateway.backends.objects.uri("operator/secret.json")):
        absent = uri[:-1] + ("0" if uri[-1] != "0" else "1")
        refused = [submitted(gateway, "bob", each) for each in (uri, absent)]
        assert [status_and_code(answer) for answer in refused] == [(422, "invalid_clip")] * 2, uri
        assert refused[0].json()["detail"].replace(uri, "") == refused[1].json()["detail"].replace(absent, "")


@pytest.mark.parametrize("of", ["upload", "clip"])
def test_ones_own_uploads_and_clips_are_taken(gateway: Gateway, of: str) -> None:
    mine = create_resources(gateway, "alice", model_name())
    uri = mine.upload.clip_uri if of == "upload" else mine.job.clip.uri
    assert "/uploads/alice/" in mine.upload.clip_uri
    answer = submitted(gateway, "alice", uri)
    assert answer.status_code == 201, answer.text


@pytest.mark.parametrize(
    "key", ["uploads/alice/../bob/x", "uploads/bob/./x", "../tav/clips/x.mp4", "a\x00b.mp4", "a\nb.mp4", ".."]
)
def test_an_address_that_leads_somewhere_else_is_refused(gateway: Gateway, key: str) -> None:
    for bucket in (gateway.backends.settings.s3_bucket, "footage"):
        assert status_and_code(submitted(gateway, "bob", f"s3://{bucket}/{key}")) == (403, "clip_uri_not_allowed")


def test_the_operator_allows_buckets_for_all_and_prefixes_for_one(
    start_gateway: Callable[..., Gateway], keys_file: str, mp4: bytes
) -> None:
    gateway = start_gateway(
        api_keys_file=keys_file,
        allowed_clip_buckets=["footage"],
        tenant_clip_prefixes={"alice": ["s3://archive/alice/", f"s3://{start_gateway().backends.settings.s3_bucket}/films/"]},
    )
    objects = gateway.backends.objects
    for bucket in ("footage", "archive"):
        if bucket not in [each["Name"] for each in objects._client.list_buckets()["Buckets"]]:
            objects._client.create_bucket(Bucket=bucket)
    for uri, takers in (
        ("s3://footage/ball.mp4", {"alice", "bob"}),
        ("s3://archive/alice/ball.mp4", {"alice"}),
        ("s3://archive/alicia/ball.mp4", set()),
        ("s3://archive/ball.mp4", set()),
        (objects.uri("films/ball.mp4"), {"alice"}),
    ):
        objects.put_bytes(mp4, uri)
        taken = {who for who in ("alice", "bob") if submitted(gateway, who, uri).status_code == 201}
        assert taken == takers, uri


# operators


def test_an_operator_sees_and_ends_what_any_tenant_has(gateway: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    mine, http, staff = create_resources(gateway, "alice", model_name()), gateway.http, HEADERS["staff"]
    assert http.get(f"/v1/tuning-jobs/{mine.job.id}", headers=staff).status_code == 404  # unless it says whose
    for scope in ("alice", "*"):
        for path in (f"tuning-jobs/{mine.job.id}", f"batches/{mine.job.batch}", f"videos/{mine.video_id}/content"):
            assert http.get(f"/v1/{path}", params={"tenant": scope}, headers=staff).status_code == 200, (path, scope)
        listed = http.get("/v1/tuning-jobs", params={"tenant": scope}, headers=staff).json()["data"]
        assert [(job["id"], job["tenant"]) for job in listed] == [(mine.job.id, "alice")]
        names = [one["name"] for one in http.get(f"/v1/models?limit=100&tenant={scope}", headers=staff).json()["data"]]
        assert (mine.model if scope == "alice" else f"alice~{mine.model}") in names
    open_job = TuningJob.model_validate(gateway.submit(moving_square(), caption(), **HEADERS["bob"]).json())
    with caplog.at_level(logging.INFO):
        ended = http.post(f"/v1/tuning-jobs/{open_job.id}/cancel?tenant=*", headers=staff).json()
        again = http.post(f"/v1/tuning-jobs/{open_job.id}/retry?tenant=bob", headers=staff).json()
        http.post(f"/v1/tuning-jobs/{again['id']}/cancel?tenant=*", headers=staff)
        for path in (f"videos/{mine.video_id}", f"models/alice~{mine.model}/aliases/production", f"models/alice~{mine.model}"):
            http.delete(f"/v1/{path}?tenant=*", headers=staff).raise_for_status()
        http.delete(f"/v1/tuning-jobs/{mine.job.id}?tenant=alice", headers=staff).raise_for_status()
    assert (ended["status"], again["status"], again["tenant"]) == ("cancelled", "queued", "bob")
    key = KEYS["staff"][1].id
    audit_lines = [record.getMessage() for record in caplog.records if "audit:" in record.getMessage()]
    assert audit_lines == [
        f"audit: key {key} of staff cancelled tuning job {open_job.id} of bob",
        f"audit: key {key} of staff cancelled tuning job {again['id']} of bob",
        f"audit: key {key} of staff deleted video {mine.video_id} of alice",
        f"audit: key {key} of staff deleted alias alice~{mine.model}@production of alice",
        f"audit: key {key} of staff deleted model alice~{mine.model} of alice",
        f"audit: key {key} of staff deleted tuning job {mine.job.id} of alice",
    ]


def test_only_an_operator_names_a_tenant(gateway: Gateway) -> None:
    for method, path in sorted(calls(gateway)):
        for scope in ("bob", "alice", "*", ""):
            answer = gateway.http.request(method, path, params={"tenant": scope}, headers=HEADERS["alice"])
            assert answer.status_code == 403, (method, path, scope)
    for scope in ("", "No Tenant", "a~b", "x" * 65):
        answer = gateway.http.get("/v1/models", params={"tenant": scope}, headers=HEADERS["staff"])
        assert status_and_code(answer) == (422, "invalid_request")


def test_what_an_operator_makes_belongs_to_the_tenant_it_names(gateway: Gateway, mp4: bytes) -> None:
    staff = {**HEADERS["staff"], "Content-Type": "application/json"}
    for path in ("videos", "videos/sync", "uploads", "tuning-jobs"):
        refused = gateway.http.post(f"/v1/{path}?tenant=*", content=json.dumps({"bytes": 5}), headers=staff)
        assert status_and_code(refused) == (422, "invalid_request") and "tenant" in refused.json()["detail"], path
    upload = gateway.http.post("/v1/uploads?tenant=bob", json={"bytes": 5}, headers=HEADERS["staff"]).json()
    assert "/uploads/bob/" in upload["clip_uri"]


def test_a_tenants_priority_has_a_ceiling_and_an_operators_has_not(
    start_gateway: Callable[..., Gateway], keys_file: str, mp4: bytes
) -> None:
    gateway = start_gateway(api_keys_file=keys_file, max_priority=3)
    refused = gateway.submit(mp4, caption(priority=4), **HEADERS["alice"])
    assert status_and_code(refused) == (422, "invalid_request") and "priority of 3 at most" in refused.json()["detail"]
    assert gateway.submit(mp4, caption(priority=3), **HEADERS["alice"]).status_code == 201
    urgent = gateway.submit(mp4, caption(priority=100), **HEADERS["staff"])
    assert (urgent.status_code, urgent.json()["priority"]) == (201, 100)
    helped = gateway.http.post("/v1/tuning-jobs?tenant=alice", headers=HEADERS["staff"], files=multipart(mp4, priority=50))
    assert (helped.json()["tenant"], helped.json()["priority"]) == ("alice", 50)
    gateway.backends.jobs.cancel(helped.json()["id"])
    retried = gateway.http.post(f"/v1/tuning-jobs/{helped.json()['id']}/retry", headers=HEADERS["alice"])
    assert (retried.status_code, retried.json()["priority"]) == (201, 3)


def multipart(clip: bytes, **fields: Any) -> dict[str, Any]:
    return {"job": (None, json.dumps(caption(**fields)), "application/json"), "clip": ("clip.mp4", clip, "video/mp4")}
