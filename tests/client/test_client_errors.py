"""Problems, silence and strangers become errors of the tree; what may be repeated is."""

from __future__ import annotations

import socket
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest
from fastapi import Response

import tav_client
from tav_client import TavClient, _calls
from tav_client._retry import RetryPolicy, asked_delay
from tav_client.schemas import VideoCreate


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "BadRequest"),
        (401, "Unauthorized"),
        (403, "Forbidden"),
        (404, "NotFound"),
        (409, "Conflict"),
        (413, "BadRequest"),
        (422, "Unprocessable"),
        (429, "RateLimited"),
        (500, "ServerError"),
        (503, "ServerError"),
    ],
)
def test_a_problem_becomes_the_error_of_its_status(service: Any, client: TavClient, status: int, kind: str) -> None:
    service.on("GET", "/v1/models/m", service.problem(status, "some_code", "Say it better.", x_should_retry="false"))
    with pytest.raises(tav_client.APIStatusError) as caught:
        client.models.get("m")
    error = caught.value
    assert type(error).__name__ == kind
    assert (error.code, error.status, error.request_id, error.message) == ("some_code", status, "req-7", "Say it better.")
    assert str(error) == "Say it better. (request req-7)"
    assert len(service.asked) == 1


def test_an_error_page_of_a_proxy_still_becomes_an_error_of_its_status(service: Any, client: TavClient) -> None:
    service.on("GET", "/v1/models/m", Response("<html>", 404, media_type="text/html"))
    with pytest.raises(tav_client.NotFound, match="answered 404"):
        client.models.get("m")


@pytest.mark.parametrize("body", ["<html>hello</html>", '{"hello": 1}'])
def test_a_stranger_that_answers_is_told_apart(service: Any, client: TavClient, body: str) -> None:
    service.on("GET", "/v1/models/m", Response(body))
    with pytest.raises(tav_client.APIResponseError, match="check the base URL"):
        client.models.get("m")


def test_nobody_at_the_address_is_a_sentence_that_says_what_to_do() -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        client = TavClient(f"http://127.0.0.1:{unheard.getsockname()[1]}", max_retries=0)
        with pytest.raises(tav_client.APIConnectionError, match="tav platform up"):
            client.models.get("m")


def test_too_slow_an_answer_is_a_connection_error(service: Any) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        client = TavClient(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout=0.1, max_retries=0)
        with pytest.raises(tav_client.APIConnectionError, match="did not answer in time"):
            client.models.get("m")


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503])
def test_a_passing_problem_is_asked_again(service: Any, client: TavClient, status: int) -> None:
    service.on("GET", "/v1/models/m", service.problem(status, "x", retry_after_ms="1"), service.ok(service.model("m")))
    assert client.models.get("m").name == "m"
    assert len(service.asked) == 2


def test_it_is_asked_again_at_most_max_retries_times(service: Any) -> None:
    service.on("GET", "/v1/models/m", service.problem(503, "queue_full", retry_after_ms="1"))
    with TavClient(max_retries=3) as client, pytest.raises(tav_client.ServerError):
        client.models.get("m")
    assert len(service.asked) == 4


def test_the_service_may_ask_for_a_repetition_of_anything(service: Any, client: TavClient) -> None:
    asking = service.problem(400, "x", x_should_retry="true", retry_after_ms="1")
    service.on("GET", "/v1/models/m", asking, service.ok(service.model("m")))
    assert client.models.get("m").name == "m"


@pytest.mark.parametrize("header", ["retry_after_ms", "retry_after"])
def test_the_wait_is_as_long_as_the_service_says(
    service: Any, client: TavClient, header: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"retry_after_ms": "300"} if header == "retry_after_ms" else {"retry_after": "0.3"}
    service.on("GET", "/v1/models/m", service.problem(503, "x", **asked), service.ok(service.model("m")))
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    client.models.get("m")
    assert waits == [0.3]


def test_a_wait_that_is_too_long_is_left_to_the_caller(service: Any, client: TavClient) -> None:
    service.on("GET", "/v1/models/m", service.problem(503, "x", retry_after="3600"))
    with pytest.raises(tav_client.ServerError):
        client.models.get("m")
    assert len(service.asked) == 1


def test_the_waits_asked_for_are_read_in_every_form() -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert asked_delay(httpx.Headers({"retry-after-ms": "1500", "retry-after": "9"})) == 1.5
    assert asked_delay(httpx.Headers({"retry-after": "2"})) == 2
    assert 25 < (asked_delay(httpx.Headers({"retry-after": later})) or 0) <= 30
    assert asked_delay(httpx.Headers({"retry-after": "soon"})) is None
    assert asked_delay(httpx.Headers({"retry-after": "nan"})) is None
    assert asked_delay(httpx.Headers()) is None


def test_a_call_that_would_do_its_work_twice_is_repeated_only_if_it_was_not_taken_up() -> None:
    call = _calls.sync_video(VideoCreate(model="m", prompt="p"))
    policy = RetryPolicy()
    assert policy.after_answer(call, httpx.Response(500), 0) is None
    assert policy.after_answer(call, httpx.Response(503), 0) is not None
    assert policy.after_silence(call, httpx.ReadTimeout(""), 0) is None
    assert policy.after_silence(call, httpx.ConnectError(""), 0) is not None
    assert policy.after_silence(call, httpx.ConnectError(""), policy.max_retries) is None


def test_the_waits_grow_and_stay_bounded() -> None:
    policy = RetryPolicy()
    waits = [policy.backoff(attempt) for attempt in range(10)]
    assert 0.375 <= waits[0] <= 0.5
    assert 0.75 <= waits[1] <= 1.0
    assert max(waits) <= policy.longest_delay


def test_a_service_on_this_machine_is_not_sought_through_a_proxy(service: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    service.on("GET", "/v1/models/m", service.ok(service.model("m")))
    with TavClient(api_key="k") as client:
        assert client.models.get("m").name == "m"
    assert service.asked[0].headers["authorization"] == "Bearer k"
