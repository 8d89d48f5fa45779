"""`client.jobs`: submitting, listing, following, ending."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import Response
from fastapi.responses import StreamingResponse

import tav_client
from tav_client import InvalidRequest, TavClient, TuningParams, schemas
from tav_client._events import EventParser

EVENTS = "/v1/tuning-jobs/j1/events"


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "ball.mp4"
    path.write_bytes(os.urandom(300_000))
    return path


@pytest.fixture
def job(service: Any, client: TavClient) -> tav_client.Job:
    service.on("GET", "/v1/tuning-jobs/j1", service.ok(service.job()))
    return client.jobs.get("j1")


def test_a_clip_is_uploaded_beside_the_job(service: Any, client: TavClient, clip: Path) -> None:
    service.on("POST", "/v1/tuning-jobs", service.ok(service.job(), 201))
    job = client.jobs.create(
        clip, caption="a red ball", model="red-ball", validation_prompts=["a blue ball"], steps=150, seed=3
    )
    (asked,) = service.asked
    assert json.loads(asked.form["job"][1]) == {
        "caption": "a red ball",
        "model": "red-ball",
        "validation_prompts": ["a blue ball"],
        "params": {"steps": 150, "seed": 3},
    }
    name, data = asked.form["clip"]
    assert (name, hashlib.sha256(data).digest()) == ("ball.mp4", hashlib.sha256(clip.read_bytes()).digest())
    assert (job.id, job.status, job.model, job.version, job.model_ref) == ("j1", "queued", "red-ball", None, "red-ball")


def test_a_repeated_upload_is_whole_and_carries_the_same_key(service: Any, client: TavClient, clip: Path) -> None:
    lost = service.problem(500, "internal", retry_after_ms="1")
    service.on("POST", "/v1/tuning-jobs", lost, service.ok(service.job(), 201))
    client.jobs.create(clip, caption="a red ball")
    client.jobs.create(clip, caption="a red ball", idempotency_key="mine")
    first, again, other = service.asked
    assert first.form["clip"] == again.form["clip"] == ("ball.mp4", clip.read_bytes())
    assert first.headers["idempotency-key"] == again.headers["idempotency-key"] != "mine"
    assert other.headers["idempotency-key"] == "mine"


def test_a_stored_clip_is_named_in_json(service: Any, client: TavClient) -> None:
    service.on("POST", "/v1/tuning-jobs", service.ok(service.job(), 201))
    client.jobs.create(clip_uri="s3://clips/a.mp4", caption="x", params=TuningParams(steps=5, size=(64, 64)), steps=7)
    (asked,) = service.asked
    assert asked.headers["content-type"] == "application/json"
    assert asked.json == {"caption": "x", "clip_uri": "s3://clips/a.mp4", "params": {"steps": 7, "size": [64, 64]}}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"clip": "nowhere.mp4"}, "There is no file 'nowhere.mp4'"),
        ({}, "either clip"),
        ({"clip": __file__, "clip_uri": "s3://a/b"}, "either clip"),
        ({"clip": __file__, "caption": "  "}, "caption must be a text that is not empty"),
        ({"clip": __file__, "steps": 0}, "params.steps must be 1 or more"),
        ({"clip": __file__, "stepz": 5}, "There is no field params.stepz: perhaps steps is meant"),
        ({"clip": __file__, "model": "Red Ball"}, "model may not be .*: .*; red-ball would do"),
        ({"clip": __file__, "validation_prompts": "a blue ball"}, "validation_prompts: give a list"),
    ],
)
def test_wrong_arguments_are_one_sentence_and_nothing_is_sent(
    service: Any, client: TavClient, arguments: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(tav_client.InvalidRequest, match=sentence) as caught:
        client.jobs.create(**({"caption": "x"} | arguments))
    assert "\n" not in str(caught.value)
    assert service.asked == []


@pytest.mark.parametrize("id", ["", "..", "."])
def test_an_id_cannot_reach_another_path(service: Any, client: TavClient, id: str) -> None:
    with pytest.raises(tav_client.InvalidRequest):
        client.jobs.get(id)
    assert service.asked == []


def test_an_id_with_a_slash_stays_one_segment(service: Any, client: TavClient) -> None:
    with pytest.raises(tav_client.NotFound):
        client.jobs.get("a/../../healthz?x=1")
    assert service.asked[0].path.startswith("/v1/tuning-jobs/")
    assert service.asked[0].query == {}


def test_listing_goes_on_over_the_pages_as_far_as_it_is_asked(service: Any, client: TavClient) -> None:
    pages = [service.page(service.job(id="j3"), service.job(id="j2"), cursor="next"), service.page(service.job(id="j1"))]
    service.on("GET", "/v1/tuning-jobs", *pages)
    jobs = client.jobs.list(status="queued", model="red-ball", page_size=2)
    assert next(jobs).id == "j3"
    assert len(service.asked) == 1
    assert [job.id for job in jobs] == ["j2", "j1"]
    assert [asked.query for asked in service.asked] == [
        {"status": "queued", "model": "red-ball", "limit": "2"},
        {"status": "queued", "model": "red-ball", "limit": "2", "after": "next"},
    ]
    with pytest.raises(tav_client.InvalidRequest, match="'done' is none of queued, running"):
        client.jobs.list(status="done")


def test_a_handle_is_refreshed_and_cancelled(service: Any, job: tav_client.Job) -> None:
    service.on("GET", "/v1/tuning-jobs/j1", service.ok(service.job("running", phase="tuning", step=3, total_steps=9)))
    service.on("POST", "/v1/tuning-jobs/j1/cancel", service.ok(service.job("cancelled")))
    assert (job.refresh().phase, job.status) == ("tuning", "running")
    assert "tuning" in repr(job)
    assert job.cancel().status == "cancelled"


def test_waiting_follows_the_events_to_the_end(service: Any, job: tav_client.Job) -> None:
    going = service.job("running", phase="tuning", step=1, total_steps=2)
    service.on("GET", EVENTS, service.events(service.job(), going, service.job("succeeded", version=4)))
    seen: list[str] = []
    assert job.wait(on_update=lambda snapshot: seen.append(snapshot.status)) is job
    assert seen == ["queued", "running", "succeeded"]
    assert (job.version, job.model_ref) == (4, "red-ball/4")


def test_a_cut_stream_is_opened_again_after_the_last_event(service: Any, client: TavClient) -> None:
    first = service.events(service.job(), service.job("running"), first=40, tail='id: 42\nevent: job\ndata: {"id"')
    gone = service.problem(503, "not_ready")
    service.on("GET", EVENTS, first, gone, service.events(service.job("succeeded", version=1), first=42))
    statuses = [snapshot.status for snapshot in client.jobs.events("j1")]
    assert statuses == ["queued", "running", "succeeded"]
    assert [asked.headers.get("last-event-id") for asked in service.asked] == [None, "41", "41"]


def test_a_stream_that_breaks_off_in_mid_answer_is_opened_again(service: Any, client: TavClient) -> None:
    async def breaking() -> Any:
        yield f"id: 7\nevent: job\ndata: {service.job('running').model_dump_json()}\n\n"
        raise ConnectionAbortedError

    broken = StreamingResponse(breaking(), media_type="text/event-stream")
    service.on("GET", EVENTS, broken, service.events(service.job("succeeded", version=1), first=8))
    assert [snapshot.status for snapshot in client.jobs.events("j1")] == ["running", "succeeded"]
    assert service.asked[-1].headers["last-event-id"] == "7"


@pytest.mark.parametrize(
    ("fields", "code", "sentence"),
    [
        ({"status": "failed", "error": {"code": "nan_loss", "message": "Lower the rate."}}, "nan_loss", "Lower the rate."),
        ({"status": "cancelled"}, "cancelled", "it was cancelled"),
    ],
)
def test_a_job_without_a_version_raises_its_reason(
    service: Any, job: tav_client.Job, fields: dict[str, Any], code: str, sentence: str
) -> None:
    service.on("GET", EVENTS, service.events(service.job(**fields)))
    with pytest.raises(tav_client.JobFailed, match=sentence) as caught:
        job.wait()
    assert caught.value.code == code
    assert caught.value.job.status == job.status == fields["status"]


@pytest.mark.parametrize("quiet", [True, False])
def test_waiting_ends_at_its_timeout(service: Any, job: tav_client.Job, quiet: bool) -> None:
    import asyncio

    sent: list[int] = []

    async def going_on() -> Any:
        for number in range(100):
            sent.append(number)
            yield ": keep-alive\n\n" if quiet else f"id: {number}\nevent: job\ndata: {service.job().model_dump_json()}\n\n"
            await asyncio.sleep(10 if quiet else 0.05)

    service.on("GET", EVENTS, lambda _: StreamingResponse(going_on(), media_type="text/event-stream"))
    with pytest.raises(tav_client.WaitTimeout, match="it goes on"):
        job.wait(timeout=0.2)
    assert 1 <= len(sent) < (2 if quiet else 100)


def test_events_of_an_unknown_job_are_not_waited_for(service: Any, client: TavClient) -> None:
    service.on("GET", EVENTS, service.problem(404, "job_not_found"))
    with pytest.raises(tav_client.NotFound):
        list(client.jobs.events("j1"))
    assert len(service.asked) == 1


@pytest.mark.parametrize(
    "make", [lambda s: Response("<html>"), lambda s: Response("event: job\ndata: {}\n\n", media_type="text/event-stream")]
)
def test_events_of_a_stranger_are_told_apart(service: Any, client: TavClient, make: Callable[[Any], Response]) -> None:
    service.on("GET", EVENTS, make(service))
    with pytest.raises(tav_client.APIResponseError):
        list(client.jobs.events("j1"))


def test_events_are_read_in_pieces_of_any_length() -> None:
    text = ": hello\r\n\r\nid: 1\r\nevent: job\r\ndata: a\u2028ü\r\ndata: b\r\n\r\nevent: other\n\ndata:c\n\nid: 3\n".encode()
    for length in (1, 3, len(text)):
        parser = EventParser()
        events = [event for at in range(0, len(text), length) for event in parser.feed(text[at : at + length])]
        assert [(event.name, event.data, event.id) for event in events] == [("job", "a\u2028ü\nb", "1"), ("message", "c", "1")]


def test_progress_without_a_terminal_is_a_line_for_each_phase(
    service: Any, job: tav_client.Job, capsys: pytest.CaptureFixture[str]
) -> None:
    tuning = [
        service.job("running", phase="tuning", step=i, total_steps=100, progress=i / 200, loss=0.5, eta_seconds=65)
        for i in (1, 2, 3)
    ]
    done = service.job("succeeded", version=1)
    service.on("GET", EVENTS, service.events(service.job(), *tuning, done))
    job.wait(progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.split() for line in err.splitlines()] == [
        ["0%", "queued"],
        ["0%", "tuning", "1/100", "loss", "0.5000", "about", "1", "min", "05", "s", "left"],
        ["100%", "succeeded", "red-ball/1"],
    ]


def test_a_failed_job_is_retried_by_a_call_that_can_be_repeated(service: Any, client: TavClient) -> None:
    lost = service.problem(500, "internal", retry_after_ms="1")
    service.on("POST", "/v1/tuning-jobs/j1/retry", lost, service.ok(service.job(id="j2", retry_of="j1"), 201))
    made = client.jobs.retry("j1")
    assert (made.id, made.snapshot.retry_of) == ("j2", "j1")
    first, again = service.asked
    assert first.headers["idempotency-key"] == again.headers["idempotency-key"]


def test_a_job_is_deleted_and_its_log_read(service: Any, client: TavClient) -> None:
    service.on("DELETE", "/v1/tuning-jobs/j1", service.ok(tav_client.schemas.JobDeleted(id="j1")))
    service.on("GET", "/v1/tuning-jobs/j1/logs", Response("one\nzweite ü\n", media_type="text/plain"))
    assert client.jobs.logs("j1") == "one\nzweite ü\n"
    client.jobs.delete("j1")
    assert [asked.method for asked in service.asked] == ["GET", "DELETE"]


def test_a_list_is_filtered_by_batch_and_metadata(service: Any, client: TavClient) -> None:
    service.on("GET", "/v1/tuning-jobs", service.page(service.job(batch="b")))
    assert [job.id for job in client.jobs.list(batch="b", metadata={"who": "me"})] == ["j1"]
    assert service.asked[0].query == {"batch": "b", "metadata.who": "me"}


def test_a_job_is_estimated_without_a_clip(service: Any, client: TavClient) -> None:
    memory = {"zero_stage": 3, "precision": "bf16"}
    numbers = {"device_memory_bytes": 5, "peak_memory_bytes": 4, "host_memory_bytes": 0, "seconds": 2.5, "fits": True}
    phases = {"tuning": {"peak_memory_bytes": 4, "seconds": 2.5}}
    one = {"memory": memory, "device": "L4", "phases": phases, "memory_error": None, "time_error": None} | numbers
    fields = {"num_frames": 8, "size": [64, 64], "steps": 5, "videos": 0, "gpus": 1, "settings": [one], "chosen": 0}
    service.on("POST", "/v1/estimates", service.ok(schemas.Estimates.model_validate(fields)))
    found = client.jobs.estimate(params={"steps": 3}, steps=5, memory=memory, device="L4", videos=0)
    assert found.settings[found.chosen].memory.zero_stage == 3 and found.settings[0].phases["tuning"].seconds == 2.5
    assert service.asked[0].json == {"params": {"steps": 5, "memory": memory}, "device": "L4", "videos": 0}
    with pytest.raises(InvalidRequest, match=r"params\.steps"):
        client.jobs.estimate(steps=0)
