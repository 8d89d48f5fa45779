"""The sentences of refusals."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from services.api.http.bodies import parse
from services.api.http.errors import of_tav_error
from tav.bases import OFFLINE
from tav.errors import InvalidClip
from tav_client import schemas
from tav_client.schemas import ModelVersion
from tests.api.conftest import Gateway
from tests.tav.test_sentences import pydantic_says

BAD = [
    ("GET", "/v1/tuning-jobs?limit=0", None, "limit must be 1 or more"),
    ("GET", "/v1/tuning-jobs?limit=many", None, 'limit must be a whole number, not "many".'),
    ("GET", "/v1/tuning-jobs?status=done", None, "status must be 'queued', 'running'"),
    ("GET", "/v1/tuning-jobs?model=Man%20Skiing", None, "man-skiing would do."),
    ("GET", "/v1/batches/-", None, 'batch may not be "-"'),
    ("GET", "/v1/models/ball/versions/first", None, 'version must be a whole number, not "first".'),
    ("GET", "/v1/videos?order=up", None, "order must be 'asc' or 'desc'"),
    ("POST", "/v1/videos", b'{"model": "ball", "prompt": "x", "width": 3}', "There is no field width: use size."),
    ("POST", "/v1/videos", b'{"model": "ball", "prompt": ', "The body is not JSON (line 1, column "),
    ("POST", "/v1/videos", b'{"model": "ball", "prompt": "x", "fps": 1e-300}', "fps must be 0.01 or more, not 1e-300."),
    ("POST", "/v1/videos", b"[]", "The body must be an object"),
    ("POST", "/v1/tuning-jobs", b'{"params": {"steps": 0}}', "params.steps must be 1 or more, not 0."),
    ("POST", "/v1/estimates", b'{"videos": 9}', "videos must be 8 or less, not 9."),
    ("POST", "/v1/uploads", b'{"bytes": 9, "content_type": "text/html"}', "it is video/…, image/gif or image/webp"),
    ("PUT", "/v1/models/ball/aliases/a", b"{}", "version is missing."),
]


@pytest.mark.parametrize(("method", "path", "body", "told"), BAD, ids=[f"{m} {p} {t[:20]}" for m, p, _, t in BAD])
def test_a_refusal_says_the_way_in_our_words(gateway: Gateway, method: str, path: str, body: bytes | None, told: str) -> None:
    headers = {} if body is None else {"Content-Type": "application/json"}
    answer = gateway.http.request(method, path, content=body, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert told in answer.json()["detail"] and pydantic_says(answer.text) == []
    assert all({"loc", "msg", "type"} == fault.keys() for fault in answer.json()["errors"])


@pytest.mark.parametrize("base", [str(OFFLINE), f"{OFFLINE}/../offline", "0" * 256, "x/../../etc", "/etc/passwd", "a\0b"])
def test_a_base_that_a_caller_names_is_never_a_path_here(gateway: Gateway, base: str) -> None:
    answer = gateway.http.post("/v1/estimates", json={"base": base, "device": "cpu"})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert gateway.http.post("/v1/estimates", json={"base": "offline", "device": "cpu"}).status_code == 200


@pytest.mark.parametrize(
    ("clause", "told"),
    [
        ("there is no object", "There is no object."),
        ("s3://clips/a.mp4 is not there", "s3://clips/a.mp4 is not there."),
        ("/tmp/a.mp4 holds no video", "/tmp/a.mp4 holds no video."),
        ("red-ball has no version 3: list them", "red-ball has no version 3: list them."),
        ("clip.mp4 breaks off", "clip.mp4 breaks off."),
        ("num_frames is too large", "num_frames is too large."),
        ("'x' is none", "'x' is none."),
    ],
)
def test_a_sentence_begins_with_a_capital_unless_with_a_name(clause: str, told: str) -> None:
    assert of_tav_error(InvalidClip(clause)).detail == told


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b'{"videos": false}', "videos must be a whole number, not false."),
        (b'{"videos": "2"}', 'videos must be a whole number, not "2".'),
        (b'{"params": {"learning_rate": true}}', "params.learning_rate must be a number, not true."),
        (b'{"base": 3}', "base must be a text, not 3."),
    ],
)
def test_json_of_another_type_is_refused_and_not_guessed_at(gateway: Gateway, body: bytes, told: str) -> None:
    answer = gateway.http.post("/v1/estimates", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422 and told in answer.json()["detail"]


@pytest.mark.parametrize(
    "written",
    [
        schemas.TuningJobCreate(
            caption="a red ball",
            params=schemas.TuningParams(size=(64, 48), memory=schemas.MemorySetting(zero_stage=2)),
            metadata={"team": "Ü"},
        ),
        schemas.VideoCreate(
            model="red-ball@production", prompt="a ball", size=(64, 48), guidance_interval=(0, 0.6), use_inverted_latents=False
        ),
        schemas.VideoCreate(model="red-ball", prompt="a ball", seconds=2),
        schemas.EstimateCreate(params=schemas.TuningParams(size=(64, 48)), videos=2),
        schemas.UploadCreate(bytes=5),
        schemas.AliasSet(version=3),
        schemas.ModelUpdate(shared=True),
    ],
)
def test_what_the_clients_write_is_taken_as_strictly_as_the_gateway_reads(written: BaseModel) -> None:
    assert parse(written.model_dump_json(), type(written)) == written


def test_a_video_plays_neither_too_fast_nor_too_slowly(gateway: Gateway, version: ModelVersion) -> None:
    for seconds, told in (
        (0.05, "are more than 120 a second: ask for more."),
        (3599, "are less than one in 100 s: ask for less."),
    ):
        body = {"model": version.name, "prompt": "a ball", "seconds": seconds}
        answer = gateway.http.post("/v1/videos", json=body)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
        assert answer.json()["detail"].endswith(told)
