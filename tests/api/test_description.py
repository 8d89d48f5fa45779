"""What answers say of themselves, and the description says of them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from services.api.http.examples import EXAMPLES
from tav_client import schemas
from tests.api.conftest import Gateway


def test_head_is_answered_wherever_get_is_with_the_same_headers_and_no_body(gateway: Gateway, mp4: bytes) -> None:
    job = gateway.submit(mp4, {"caption": "a red square"}).json()["id"]
    paths = [
        "/healthz",
        "/docs",
        "/openapi.json",
        "/v1/models",
        "/v1/models/nobody",
        "/v1/tuning-jobs",
        f"/v1/tuning-jobs/{job}",
    ]
    for path in paths:
        got, head = gateway.http.get(path), gateway.http.head(path)
        assert (head.status_code, head.content) == (got.status_code, b"")
        for name in ("content-type", "content-length", "content-encoding"):
            assert head.headers.get(name) == got.headers.get(name), (path, name)
    followed = gateway.http.head(f"/v1/tuning-jobs/{job}/events")  # which GET would follow for ever
    assert (followed.status_code, followed.headers["content-type"].partition(";")[0]) == (200, "text/event-stream")
    wrong = gateway.http.head("/v1/estimates")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/v1/tuning-jobs", {"GET", "HEAD", "POST"}),
        ("/v1/models/ball/aliases/a", {"PUT", "DELETE"}),
        ("/v1/models/ball/versions/1", {"GET", "HEAD", "DELETE"}),
        ("/v1/videos/sync", {"POST"}),
        ("/v1/videos/5", {"GET", "HEAD", "DELETE"}),
        ("/docs", {"GET", "HEAD"}),
    ],
)
def test_a_wrong_method_is_told_all_that_the_path_has(gateway: Gateway, path: str, allowed: set[str]) -> None:
    answer = gateway.http.request("PATCH", path)
    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
    assert set(answer.headers["allow"].split(", ")) == allowed


def test_long_answers_are_compressed_for_those_who_take_it_and_video_never(gateway: Gateway) -> None:
    headers = {"Accept-Encoding": "gzip"}
    description = gateway.http.get("/openapi.json", headers=headers)
    assert description.headers["content-encoding"] == "gzip" and description.json()["info"]["title"] == "tav"
    assert int(description.headers["content-length"]) < len(description.content) / 4
    assert "content-encoding" not in gateway.http.get("/openapi.json", headers={"Accept-Encoding": "identity"}).headers
    assert "content-encoding" not in gateway.http.get("/healthz", headers=headers).headers


def test_pages_of_named_origins_may_read_answers_and_no_others(start_gateway: Callable[..., Gateway]) -> None:
    ours, theirs = "https://studio.example", "https://elsewhere.example"
    gateway = start_gateway(cors_origins=[ours])
    preflight = {"Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "authorization, content-type"}
    before = gateway.http.options("/v1/models/ball/aliases/a", headers={"Origin": ours, **preflight})
    assert before.status_code == 200 and before.headers["access-control-allow-origin"] == ours
    assert "PUT" in before.headers["access-control-allow-methods"]
    got = gateway.http.get("/v1/models", headers={"Origin": ours, "Sec-Fetch-Site": "cross-site"})
    assert got.headers["access-control-allow-origin"] == ours
    assert {"x-request-id", "retry-after-ms"} <= {
        h.strip().lower() for h in got.headers["access-control-expose-headers"].split(",")
    }
    other = gateway.http.options("/v1/models/ball/aliases/a", headers={"Origin": theirs, **preflight})
    assert (other.status_code, other.json()["code"]) == (405, "method_not_allowed")
    got = gateway.http.get("/v1/models", headers={"Origin": theirs})
    assert not [name for name in got.headers if name.startswith("access-control")]


def test_every_operation_has_a_name_of_its_own_a_key_and_answers_that_can_come(gateway: Gateway) -> None:
    described = gateway.http.get("/openapi.json").json()
    operations = [(call, op) for call, methods in described["paths"].items() for op in methods.values()]
    ids = [op["operationId"] for _, op in operations]
    assert len(set(ids)) == len(ids) and {"submit_tuning_job", "get_video_content", "create_upload"} <= set(ids)
    assert all(re.fullmatch("[a-z]+(_[a-z]+)*", name) for name in ids)
    assert described["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    for path, op in operations:
        assert (op.get("security") == [{}, {"key": []}]) is path.startswith("/v1/")
        for status, answer in op["responses"].items():
            assert "x-request-id" in answer["headers"]
            if int(status) >= 400:
                assert list(answer["content"]) == ["application/problem+json"], (path, status)
    assert "422" not in described["paths"]["/readyz"]["get"]["responses"]
    assert not {"HTTPValidationError", "ValidationError"} & described["components"]["schemas"].keys()


@pytest.mark.parametrize(("name", "example"), EXAMPLES.items())
def test_the_examples_of_the_description_are_of_their_schemas(gateway: Gateway, name: str, example: dict[str, Any]) -> None:
    getattr(schemas, name).model_validate_json(json.dumps(example))
    assert gateway.http.get("/openapi.json").json()["components"]["schemas"][name]["examples"] == [example]
