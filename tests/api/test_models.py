"""/v1/models and /v1/uploads over real storage."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from registry.errors import ObjectMissing
from registry.registration import VersionInfo
from services.api.routes.uploads import remove_old_uploads
from tav.probe import ClipLimits
from tav_client.schemas import ModelVersion, TuningJobCreate, Upload
from tests.api.conftest import Gateway


def register_version(gateway: Gateway, version: ModelVersion) -> int:
    """Register a further version of the same model; return its number."""
    jobs = gateway.backends.jobs
    job = jobs.create(TuningJobCreate(caption="a ball"), jobs.get(version.job_id).clip, "offline", version.name)
    with tempfile.TemporaryDirectory() as folder:
        for name in ("delta.safetensors", "latents.safetensors", "config.json"):
            (Path(folder) / name).write_bytes(b"{}")
        info = VersionInfo(base="offline", base_fingerprint="f" * 64, caption="a ball", num_frames=8, size=(64, 64))
        number = gateway.backends.versions.register(job, Path(folder), info).version
    jobs.succeed(job.id, number)
    return number


def test_models_and_versions_are_shown(gateway: Gateway, version: ModelVersion) -> None:
    listed = gateway.http.get("/v1/models", params={"limit": 100}).json()["data"]
    assert version.name in [model["name"] for model in listed]
    assert gateway.http.get(f"/v1/models/{version.name}").json()["latest_version"] == 1
    shown = gateway.http.get(f"/v1/models/{version.name}/versions/1").json()
    assert ModelVersion.model_validate(shown) == version


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("nobody", 404, "model_not_found"),
        ("nobody/versions/1", 404, "model_not_found"),
        ("{name}/versions/7", 404, "version_not_found"),
        ("{name}/versions/0", 422, "invalid_request"),
        ("{name}/versions/x", 422, "invalid_request"),
        ("a'b", 404, "model_not_found"),
    ],
)
def test_what_is_not_in_the_registry_is_said_so(
    gateway: Gateway, version: ModelVersion, path: str, status: int, code: str
) -> None:
    answer = gateway.http.get(f"/v1/models/{path.format(name=version.name)}")
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text


def test_a_models_versions_are_listed_newest_first_page_by_page(gateway: Gateway, version: ModelVersion) -> None:
    numbers = [version.version, register_version(gateway, version), register_version(gateway, version)]
    url, seen, after = f"/v1/models/{version.name}/versions", [], None
    while True:
        page = gateway.http.get(url, params={"limit": 2, **({"after": after} if after else {})}).json()
        assert 1 <= len(page["data"]) <= 2 and page["has_more"] is (page["next_cursor"] is not None)
        seen += [one["version"] for one in page["data"]]
        if (after := page["next_cursor"]) is None:
            break
    assert seen == numbers[::-1]
    for cursor in ("nonsense", "0", "1' OR '1'='1", "²"):
        assert gateway.http.get(url, params={"after": cursor}).json()["code"] == "invalid_request"
    assert gateway.http.get("/v1/models/nobody/versions").json()["code"] == "model_not_found"


def test_a_cursor_nobody_gave_is_refused(gateway: Gateway) -> None:
    answer = gateway.http.get("/v1/models", params={"after": "nonsense"})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


def test_an_alias_is_set_moved_and_deleted(gateway: Gateway, version: ModelVersion) -> None:
    url = f"/v1/models/{version.name}/aliases/production"
    assert gateway.http.put(url, json={"version": 1}).json()["aliases"] == {"production": 1}
    response = gateway.http.post("/v1/videos/sync", json={"model": f"{version.name}@production", "prompt": "a blue ball"})
    assert response.headers["x-tav-model-version"] == f"{version.name}/1"
    second = register_version(gateway, version)
    assert gateway.http.put(url, json={"version": second}).json()["aliases"] == {"production": second}
    response = gateway.http.post("/v1/videos/sync", json={"model": f"{version.name}@production", "prompt": "a blue ball"})
    assert response.headers["x-tav-model-version"] == f"{version.name}/{second}"  # from the next request on
    assert gateway.http.delete(url).json()["aliases"] == {}
    gone = gateway.http.post("/v1/videos", json={"model": f"{version.name}@production", "prompt": "a blue ball"})
    assert (gone.status_code, gone.json()["code"]) == (404, "version_not_found")
    assert gateway.http.delete(url).json()["code"] == "version_not_found"


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("{name}/aliases/production", {"version": 9}, 404, "version_not_found"),
        ("nobody/aliases/production", {"version": 1}, 404, "model_not_found"),
        ("{name}/aliases/v1", {"version": 1}, 422, "invalid_request"),
        ("{name}/aliases/latest", {"version": 1}, 422, "invalid_request"),
        ("{name}/aliases/a b", {"version": 1}, 422, "invalid_request"),
        ("{name}/aliases/production", {"version": 0}, 422, "invalid_request"),
        ("{name}/aliases/production", {}, 422, "invalid_request"),
        ("{name}/aliases/production", {"version": 1, "x": 2}, 422, "invalid_request"),
    ],
)
def test_a_wrong_alias_is_refused(
    gateway: Gateway, version: ModelVersion, path: str, body: dict[str, int], status: int, code: str
) -> None:
    answer = gateway.http.put(f"/v1/models/{path.format(name=version.name)}", json=body)
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert gateway.http.get(f"/v1/models/{version.name}").json()["aliases"] == {}


def test_a_deleted_version_leaves_no_object_and_the_others_stay(gateway: Gateway, version: ModelVersion) -> None:
    second = register_version(gateway, version)
    url = f"/v1/models/{version.name}/versions/1"
    gateway.http.put(f"/v1/models/{version.name}/aliases/production", json={"version": 1})
    refused = gateway.http.delete(url)
    assert (refused.status_code, refused.json()["code"]) == (409, "version_in_use")
    assert "@production" in refused.json()["detail"] and refused.headers["x-should-retry"] == "false"
    gateway.http.delete(f"/v1/models/{version.name}/aliases/production")
    answer = gateway.http.delete(url).json()
    assert answer == {"name": version.name, "version": 1, "object": "model_version.deleted", "deleted": True}
    assert (gateway.http.get(url).status_code, gateway.http.delete(url).status_code) == (404, 404)
    left = {item.uri for item in gateway.backends.objects.list(f"models/{version.name}/")}
    assert left == {file.uri for file in gateway.backends.versions.get(version.name, second).files.values()}
    assert gateway.http.get(f"/v1/models/{version.name}").json()["latest_version"] == second
    assert gateway.http.get(f"/v1/tuning-jobs/{version.job_id}").status_code == 200


def test_a_deleted_model_is_gone_with_all_its_objects(gateway: Gateway, version: ModelVersion) -> None:
    register_version(gateway, version)
    gateway.http.put(f"/v1/models/{version.name}/aliases/production", json={"version": 1})
    url = f"/v1/models/{version.name}"
    assert gateway.http.delete(url).json() == {"name": version.name, "object": "model.deleted", "deleted": True}
    assert list(gateway.backends.objects.list(f"models/{version.name}/")) == []
    assert (gateway.http.get(url).json()["code"], gateway.http.delete(url).status_code) == ("model_not_found", 404)


def test_what_is_in_use_is_not_deleted(gateway: Gateway, version: ModelVersion) -> None:
    paths = [f"/v1/models/{version.name}/versions/1", f"/v1/models/{version.name}"]
    gateway.sampler.gate.clear()
    video = gateway.http.post("/v1/videos", json={"model": version.name, "prompt": "a blue ball"}).json()
    for path in paths:
        refused = gateway.http.delete(path)
        assert (refused.status_code, refused.json()["code"]) == (409, "version_in_use")
        assert "A video of" in refused.json()["detail"]
    assert gateway.http.delete(f"/v1/videos/{video['id']}").status_code == 200
    jobs, done = gateway.backends.jobs, gateway.backends.jobs.get(version.job_id)
    waiting = jobs.create(TuningJobCreate(caption="a ball"), done.clip, "offline", version.name)
    refused = gateway.http.delete(paths[1])
    assert (refused.status_code, refused.json()["code"]) == (409, "version_in_use") and waiting.id in refused.json()["detail"]
    jobs.cancel(waiting.id)
    assert gateway.http.delete(paths[1]).status_code == 200


def test_an_upload_becomes_the_clip_of_a_job(gateway: Gateway, mp4: bytes) -> None:
    answer = gateway.http.post("/v1/uploads", json={"bytes": len(mp4)})
    assert answer.status_code == 201, answer.text
    upload = Upload.model_validate(answer.json())
    assert (upload.method, upload.headers) == ("PUT", {"Content-Type": "video/mp4"})
    early = gateway.http.post("/v1/tuning-jobs", json={"caption": "a square", "clip_uri": upload.clip_uri})
    assert (early.status_code, early.json()["code"]) == (422, "invalid_clip")
    httpx.put(upload.url, content=mp4, headers=upload.headers).raise_for_status()
    request = {"caption": "a square", "clip_uri": upload.clip_uri, "params": {"num_frames": 8}}
    job = gateway.http.post("/v1/tuning-jobs", json=request)
    assert job.status_code == 201, job.text
    assert job.json()["clip"]["sha256"] == hashlib.sha256(mp4).hexdigest()
    gateway.backends.jobs.cancel(job.json()["id"])


def test_an_upload_takes_only_what_was_announced(gateway: Gateway, mp4: bytes) -> None:
    upload = Upload.model_validate(gateway.http.post("/v1/uploads", json={"bytes": len(mp4)}).json())
    other = upload.url.replace("/uploads/", "/clips/")
    for url, data, headers in (
        (upload.url, mp4 + b"more", upload.headers),
        (upload.url, mp4, {"Content-Type": "text/html"}),
        (other, mp4, upload.headers),
    ):
        assert httpx.put(url, content=data, headers=headers).status_code == 403
    assert list(gateway.backends.objects.list(upload.clip_uri)) == []


def test_uploads_beyond_the_limit_and_of_other_types_are_refused(start_gateway: Callable[..., Gateway]) -> None:
    gateway = start_gateway(clip_limits=ClipLimits(max_bytes=1000))
    for body, status, code in (
        ({"bytes": 1001}, 413, "clip_too_large"),
        ({"bytes": 0}, 422, "invalid_request"),
        ({}, 422, "invalid_request"),
        ({"bytes": 10, "content_type": "text/html"}, 422, "invalid_request"),
    ):
        answer = gateway.http.post("/v1/uploads", json=body)
        assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_uploads_are_kept_for_a_day(gateway: Gateway) -> None:
    stored = gateway.backends.objects.put_bytes(b"a clip", "uploads/old")
    remove_old_uploads(gateway.backends.objects)
    assert gateway.backends.objects.get_bytes(stored.uri) == b"a clip"
    remove_old_uploads(gateway.backends.objects, now=time.time() + 25 * 3600)
    with pytest.raises(ObjectMissing):
        gateway.backends.objects.stat(stored.uri)
