"""What every call shares: ids, keys, errors nobody expected, operations, the description."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from services.api.app import build
from services.api.exposure import check_credentials
from services.api.keys import KeyFile, make_key
from services.settings import Settings
from tav.errors import InvalidConfig
from tav_client import schemas
from tests.api.conftest import Gateway
from tests.certificate import write_certificate


@pytest.mark.parametrize(
    ("sent_id", "accepted"), [("mine-1.2_3", True), ("x" * 129, False), ("two words", False), ("", False), (None, False)]
)
def test_every_answer_has_a_request_id(gateway: Gateway, sent_id: str | None, accepted: bool) -> None:
    for path in ("/healthz", "/v1/models/nobody", "/nowhere"):
        answer = gateway.http.get(path, headers={} if sent_id is None else {"x-request-id": sent_id})
        assert (answer.headers["x-request-id"] == sent_id) is accepted
        assert len(answer.headers.get_list("x-request-id")) == 1 and answer.headers["x-request-id"]


def test_what_nobody_expected_is_logged_and_not_told(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("secret of the house")

    monkeypatch.setattr(gateway.backends.versions, "get_model", broken)
    with caplog.at_level(logging.ERROR):
        answer = gateway.http.get("/v1/models/ball", headers={"x-request-id": "find-me"})
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert "secret" not in answer.text and answer.headers["x-request-id"] == "find-me"
    assert "secret of the house" in caplog.text and "find-me" in caplog.text


def test_storage_that_is_away_is_503_to_be_repeated(start_gateway: Callable[..., Gateway]) -> None:
    gateway = start_gateway(mlflow_tracking_uri="http://127.0.0.1:9", s3_endpoint_url="http://127.0.0.1:9")
    gateway.scheduler.away = True
    ready = gateway.http.get("/readyz")
    assert (ready.status_code, ready.json()["code"]) == (503, "not_ready")
    assert all(name in ready.json()["detail"] for name in ("S3", "MLflow", "the scheduler"))
    assert gateway.http.get("/healthz").status_code == 200


def test_a_gateway_whose_parts_answer_is_ready(gateway: Gateway) -> None:
    assert gateway.http.get("/readyz").json() == {"status": "ready"}
    gateway.scheduler.away = True
    answer = gateway.http.get("/readyz")
    assert answer.status_code == 503 and "the scheduler" in answer.json()["detail"] and "S3" not in answer.json()["detail"]


def test_with_keys_every_call_but_operations_needs_one(start_gateway: Callable[..., Gateway], tmp_path: Path) -> None:
    key, record = make_key("first")
    place = str(tmp_path / "keys.json")
    KeyFile(place, Settings()).write({record.id: record})
    gateway = start_gateway(api_keys_file=place)
    for path in ("/healthz", "/readyz", "/docs", "/openapi.json"):
        assert gateway.http.get(path).status_code == 200
    other = key[:-1] + ("a" if key[-1] != "a" else "b")
    refused = ("", "Bearer wrong", f"Bearer {other}", f"Bearer {record.sha256}", f"Basic {key}", key, f"Bearer {record.id}")
    for authorization in refused:
        headers = {"Authorization": authorization} if authorization else {}
        for method, path in (("GET", "/v1/models"), ("POST", "/v1/videos"), ("POST", "/v1/tuning-jobs")):
            answer = gateway.http.request(method, path, headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
            assert answer.headers["www-authenticate"] == "Bearer"
    assert gateway.http.get("/v1/models", headers={"Authorization": f"bearer {key}"}).status_code == 200


def test_a_path_or_method_that_does_not_exist_is_a_problem_too(gateway: Gateway) -> None:
    nowhere, wrong = gateway.http.get("/v1/nowhere"), gateway.http.delete("/v1/models")
    assert (nowhere.status_code, nowhere.json()["code"]) == (404, "not_found")
    assert (wrong.status_code, wrong.json()["code"], wrong.headers["allow"]) == (405, "method_not_allowed", "GET, HEAD")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org"])
def test_a_gateway_for_others_than_this_machine_needs_keys(host: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="TAV_API_KEYS_FILE"):
        build(Settings(host=host))
    place = str(tmp_path / "keys.json")
    with pytest.raises(InvalidConfig, match="tav keys create"):
        check_credentials(Settings(host=host, api_keys_file=place))
    _, record = make_key("somebody")
    KeyFile(place, Settings()).write({record.id: record})
    check_credentials(Settings(host=host, api_keys_file=place))


def test_a_certificate_without_its_key_is_refused_at_the_start(tmp_path: Path) -> None:
    certificate, key = write_certificate(tmp_path)
    check_credentials(Settings(tls_certfile=certificate, tls_keyfile=key))
    for files in (
        {"tls_certfile": certificate},
        {"tls_keyfile": key},
        {"tls_certfile": certificate, "tls_keyfile": tmp_path / "no"},
    ):
        with pytest.raises(InvalidConfig, match="TAV_TLS_CERTFILE"):
            check_credentials(Settings(**files))


def test_loopback_needs_no_keys() -> None:
    for host in ("127.0.0.1", "127.0.0.2", "::1", "localhost"):
        check_credentials(Settings(host=host))


def test_gateway_and_scheduler_and_what_deploys_them_do_without_torch() -> None:
    code = "import sys, services.api.app, services.tuning.scheduler.actor, services.sampling.deployment; "
    code += "print(sorted({'torch', 'diffusers', 'transformers'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_description_covers_every_call_and_resolves(gateway: Gateway) -> None:
    described = gateway.http.get("/openapi.json").json()
    calls = {f"{method.upper()} {path}" for path, methods in described["paths"].items() for method in methods}
    assert calls == {
        "POST /v1/tuning-jobs",
        "GET /v1/tuning-jobs",
        "GET /v1/tuning-jobs/{job_id}",
        "GET /v1/tuning-jobs/{job_id}/events",
        "DELETE /v1/tuning-jobs/{job_id}",
        "GET /v1/tuning-jobs/{job_id}/logs",
        "GET /v1/tuning-jobs/{job_id}/metrics",
        "POST /v1/tuning-jobs/{job_id}/cancel",
        "POST /v1/tuning-jobs/{job_id}/retry",
        "GET /v1/batches/{batch}",
        "POST /v1/batches/{batch}/cancel",
        "GET /v1/bases",
        "GET /v1/models",
        "GET /v1/models/{name}",
        "PATCH /v1/models/{name}",
        "DELETE /v1/models/{name}",
        "GET /v1/models/{name}/versions",
        "GET /v1/models/{name}/versions/{version}",
        "DELETE /v1/models/{name}/versions/{version}",
        "PUT /v1/models/{name}/aliases/{alias}",
        "DELETE /v1/models/{name}/aliases/{alias}",
        "POST /v1/estimates",
        "POST /v1/uploads",
        "POST /v1/videos",
        "GET /v1/videos",
        "GET /v1/videos/{video_id}",
        "DELETE /v1/videos/{video_id}",
        "GET /v1/videos/{video_id}/content",
        "GET /v1/videos/{video_id}/events",
        "POST /v1/videos/sync",
        "GET /healthz",
        "GET /readyz",
    }
    known = described["components"]["schemas"]
    assert {"TuningJob", "TuningJobCreate", "TuningParams", "VideoCreate", "Video", "Problem"} <= known.keys()
    assert known["TuningJob"]["properties"].keys() == schemas.TuningJob.model_fields.keys()
    for ref in _refs(described):
        kind, _, name = ref.removeprefix("#/components/").partition("/")
        assert name in described["components"][kind], ref


def _refs(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return own + [ref for child in node.values() for ref in _refs(child)]
    return [ref for child in node for ref in _refs(child)] if isinstance(node, list) else []
