"""/v1/tuning-jobs over real storage."""

from __future__ import annotations

import errno
import json
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from tav.probe import ClipLimits
from tav_client.schemas import Estimates, JobPhase, JobStatus, TuningJob
from tests.api.conftest import Gateway, moving_square
from tests.media.files import woven, write
from tests.media.refused import hidden


def caption(**fields: Any) -> dict[str, Any]:
    return {"caption": "a red ball", "model": f"ball-{uuid.uuid4().hex[:8]}", **fields}


def events(text: str) -> list[tuple[int, dict[str, Any]]]:
    blocks = [block.splitlines() for block in text.split("\n\n") if block.startswith("id:")]
    assert all(event == "event: job" for _, event, _ in blocks)
    return [(int(number[4:]), json.loads(data[6:])) for number, _, data in blocks]


def test_a_submitted_clip_becomes_a_queued_job_with_everything_kept(gateway: Gateway, mp4: bytes) -> None:
    job_request = caption(params={"steps": 3, "num_frames": 8}, validation_prompts=["a blue ball"], metadata={"who": "me"})
    answer = gateway.submit(mp4, job_request)
    assert answer.status_code == 201, answer.text
    job = TuningJob.model_validate(answer.json())
    assert answer.headers["location"] == f"/v1/tuning-jobs/{job.id}"
    assert (job.status, job.base, job.model) == (JobStatus.queued, "offline", job_request["model"])
    assert (job.clip.num_frames, job.clip.width, job.clip.fps) == (12, 64, 8.0)
    assert gateway.backends.objects.get_bytes(job.clip.uri, job.clip.sha256) == mp4
    assert gateway.backends.jobs.read_artifact(job.id, "source.mp4") == mp4
    assert gateway.scheduler.notified == 1
    assert gateway.http.get(answer.headers["location"]).json() == answer.json()
    assert list(gateway.backends.settings.work_dir.glob("*")) == []


def test_a_job_says_how_its_clip_was_read(gateway: Gateway, tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.mts", woven(), "libx264", aspect=Fraction(4, 3), options={"flags": "+ildct", "x264-params": "tff=1"}
    )
    clip = TuningJob.model_validate(gateway.submit(path.read_bytes(), caption(params={"num_frames": 8})).json()).clip
    assert (clip.width, clip.height, clip.num_frames, clip.fps, clip.codec) == (128, 64, 12, 12.0, "h264")
    assert clip.duration == pytest.approx(1.0) and clip.notes == ["96x64 as stored", "deinterlaced"]


def test_limits_hold_for_frames_that_are_larger_than_their_header(gateway: Gateway, tmp_path: Path) -> None:
    answer = gateway.submit(hidden(tmp_path).read_bytes(), caption(params={"num_frames": 2}))
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_clip")
    assert "4000x3000" in answer.json()["detail"]
    assert list(gateway.backends.settings.work_dir.glob("*")) == []


BAD: dict[str, tuple[Callable[[bytes], tuple[bytes | None, Any]], int, str, str]] = {
    "not a video": (lambda _: (b"hello " * 99, caption()), 422, "invalid_clip", "not a readable video"),
    "empty": (lambda _: (b"", caption()), 422, "invalid_clip", "empty"),
    "one frame": (lambda _: (moving_square(1), caption()), 422, "invalid_clip", "1 frame"),
    "cut off": (lambda mp4: (mp4[: len(mp4) // 2], caption()), 422, "invalid_clip", ""),
    "too few frames": (lambda mp4: (mp4, caption(params={"num_frames": 40})), 422, "invalid_clip", "too few"),
    "too large a stride": (
        lambda mp4: (mp4, caption(params={"num_frames": 8, "frame_stride": 5})),
        422,
        "invalid_clip",
        "stride",
    ),
    "no caption": (lambda mp4: (mp4, {"model": "ball"}), 422, "invalid_request", "caption"),
    "blank caption": (lambda mp4: (mp4, {"caption": "  "}), 422, "invalid_request", "caption"),
    "no clip": (lambda _: (None, caption()), 422, "invalid_request", "no clip"),
    "two clips": (lambda mp4: (mp4, caption(clip_uri="s3://tav/clips/a.mp4")), 422, "invalid_request", "two clips"),
    "wrong type": (lambda mp4: (mp4, caption(params={"steps": "many"})), 422, "invalid_request", "params.steps"),
    "out of range": (lambda mp4: (mp4, caption(params={"steps": 0})), 422, "invalid_request", "params.steps"),
    "unknown field": (lambda mp4: (mp4, caption(colour="red")), 422, "invalid_request", "colour"),
    "odd size": (lambda mp4: (mp4, caption(params={"size": [60, 64]})), 422, "invalid_request", "multiples of 8"),
    "gigantic size": (lambda mp4: (mp4, caption(params={"size": [80000, 80000]})), 422, "invalid_request", "pixels"),
    "another base": (lambda mp4: (mp4, caption(base="/etc")), 422, "invalid_request", "base"),
    "bad name": (lambda mp4: (mp4, caption(model="../x")), 422, "invalid_request", "model"),
    "not JSON": (lambda mp4: (mp4, "{caption}"), 422, "invalid_request", "JSON"),
    "a list": (lambda mp4: (mp4, "[]"), 422, "invalid_request", ""),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_submission_is_refused_with_a_sentence_and_leaves_nothing_behind(gateway: Gateway, mp4: bytes, name: str) -> None:
    make, status, code, words = BAD[name]
    before = gateway.contents()
    answer = gateway.submit(*make(mp4))
    problem = answer.json()
    assert (answer.status_code, problem["code"], problem["status"]) == (status, code, status), problem
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-request-id"]
    assert words in problem["detail"] and problem["detail"].endswith(".")
    assert gateway.contents() == before


def test_a_job_may_name_any_base_that_is_served(start_gateway: Callable[..., Gateway], mp4: bytes) -> None:
    gateway = start_gateway(bases=["/models/sketches"])
    responses = {base: gateway.submit(mp4, caption(base=base, params={"num_frames": 4})) for base in (None, "/models/sketches")}
    assert {base: answer.json().get("base") for base, answer in responses.items()} == {
        None: "offline",
        "/models/sketches": "/models/sketches",
    }
    refused = gateway.submit(mp4, caption(base="/models/photos"))
    assert refused.status_code == 422 and "'offline' and '/models/sketches'" in refused.json()["detail"]


def test_an_upload_larger_than_allowed_is_refused_without_keeping_it(start_gateway: Callable[..., Gateway]) -> None:
    gateway = start_gateway(clip_limits=ClipLimits(max_bytes=10_000))
    for size in (10_001, 3 << 20):  # beyond the limit by a byte, and by so much that the rest is not read
        before = gateway.contents()
        answer = gateway.submit(bytes(size), caption())
        assert (answer.status_code, answer.json()["code"]) == (413, "clip_too_large")
        assert gateway.contents() == before


def test_an_upload_without_an_announced_length_is_refused_at_the_limit(start_gateway: Callable[..., Gateway]) -> None:
    gateway = start_gateway(clip_limits=ClipLimits(max_bytes=10_000))

    def body() -> Iterator[bytes]:
        yield b'--X\r\nContent-Disposition: form-data; name="clip"; filename="c"\r\n\r\n'
        for _ in range(200):  # never ends the part: only a limit on what is read can refuse it
            yield bytes(64 << 10)

    answer = gateway.http.post("/v1/tuning-jobs", content=body(), headers={"content-type": "multipart/form-data; boundary=X"})
    assert (answer.status_code, answer.json()["code"]) == (413, "clip_too_large")
    assert gateway.contents()[2] == []


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_another_type_of_body_is_415(gateway: Gateway, kind: str) -> None:
    for path in ("/v1/tuning-jobs", "/v1/videos", "/v1/videos/sync"):
        answer = gateway.http.post(path, content=b"{}", headers={"content-type": kind} if kind else {})
        assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")


def test_a_broken_multipart_body_is_422(gateway: Gateway) -> None:
    for kind in ("multipart/form-data", "multipart/form-data; boundary=X"):
        answer = gateway.http.post("/v1/tuning-jobs", content=b"nonsense", headers={"content-type": kind})
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request"), answer.text


def test_a_part_nobody_knows_is_refused(gateway: Gateway, mp4: bytes) -> None:
    files = {"job": (None, json.dumps(caption())), "clip": ("c.mp4", mp4), "extra": (None, "1")}
    answer = gateway.http.post("/v1/tuning-jobs", files=files)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


def test_a_clip_is_taken_from_our_bucket_by_its_address(gateway: Gateway, mp4: bytes) -> None:
    stored = gateway.backends.objects.put_bytes(mp4, f"uploads/{uuid.uuid4().hex}.mp4")
    answer = gateway.http.post("/v1/tuning-jobs", json=caption(clip_uri=stored.uri))
    assert answer.status_code == 201, answer.text
    assert answer.json()["clip"]["sha256"] == stored.sha256


@pytest.mark.parametrize(
    ("uri", "status", "code"),
    [
        ("s3://elsewhere/clip.mp4", 403, "clip_uri_not_allowed"),
        ("file:///etc/passwd", 403, "clip_uri_not_allowed"),
        ("http://127.0.0.1:5000/", 403, "clip_uri_not_allowed"),
        ("s3://tav", 403, "clip_uri_not_allowed"),
        ("s3://tav/uploads/not-there.mp4", 422, "invalid_clip"),
    ],
)
def test_a_clip_address_that_is_not_allowed_or_not_there_is_refused(gateway: Gateway, uri: str, status: int, code: str) -> None:
    before = gateway.contents()
    answer = gateway.http.post("/v1/tuning-jobs", json=caption(clip_uri=uri))
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert gateway.contents() == before


def test_the_same_key_and_request_answer_the_job_made_first(gateway: Gateway, mp4: bytes) -> None:
    key, job_request = str(uuid.uuid4()), caption()
    first = gateway.submit(mp4, job_request, idempotency_key=key)
    jobs = gateway.contents()[0]
    again = gateway.submit(mp4, {**job_request, "priority": 0}, idempotency_key=key)
    stored = gateway.backends.objects.put_bytes(mp4, "uploads/same.mp4")
    address = gateway.http.post(
        "/v1/tuning-jobs", json={**job_request, "clip_uri": stored.uri}, headers={"Idempotency-Key": key}
    )
    assert (first.status_code, again.status_code, address.status_code) == (201, 200, 200)
    assert first.json()["id"] == again.json()["id"] == address.json()["id"]
    other = gateway.submit(mp4, {**job_request, "priority": 1}, idempotency_key=key)
    clip = gateway.submit(moving_square(seed=7), job_request, idempotency_key=key)
    for refused in (other, clip):
        assert (refused.status_code, refused.json()["code"]) == (409, "idempotency_key_reused")
        assert refused.headers["x-should-retry"] == "false"
    assert gateway.contents()[0] == jobs


def test_two_creates_with_one_key_at_the_same_time_make_one_job(gateway: Gateway, mp4: bytes) -> None:
    key, job_request = str(uuid.uuid4()), caption()
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda _: gateway.submit(mp4, job_request, idempotency_key=key), range(3)))
    assert sorted(answer.status_code for answer in answers) == [200, 200, 201]
    assert len({answer.json()["id"] for answer in answers}) == 1


@pytest.mark.parametrize("key", ["", "x" * 256, "two words"])
def test_a_malformed_key_is_refused(gateway: Gateway, mp4: bytes, key: str) -> None:
    answer = gateway.submit(mp4, caption(), idempotency_key=key)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


def test_a_job_is_made_and_shown_while_the_scheduler_is_away(gateway: Gateway, mp4: bytes) -> None:
    gateway.scheduler.away = True
    answer = gateway.submit(mp4, caption())
    assert answer.status_code == 201
    path = answer.headers["location"]
    assert gateway.http.get(path).json()["status"] == "queued"
    refused = gateway.http.post(f"{path}/cancel")
    assert (refused.status_code, refused.json()["code"]) == (503, "not_ready")
    assert refused.headers["retry-after"] and int(refused.headers["retry-after-ms"]) > 0


def test_a_name_is_made_from_the_caption(gateway: Gateway, mp4: bytes) -> None:
    named = gateway.submit(mp4, {"caption": "Ein Ball rollt über Sand!"}).json()["model"]
    unnamed = gateway.submit(mp4, {"caption": "滑雪的人"}).json()
    assert named == "ein-ball-rollt-uber-sand"
    assert unnamed["model"] == f"clip-{unnamed['clip']['sha256'][:12]}"


def test_a_clip_without_a_caption_is_taken_where_there_is_a_captioner(
    start_gateway: Callable[..., Gateway], mp4: bytes
) -> None:
    key, gateway = str(uuid.uuid4()), start_gateway(captioner="/models/blip2")
    job = gateway.submit(mp4, {}, idempotency_key=key).json()
    assert (job["caption"], job["caption_source"], job["model"]) == (None, "automatic", f"clip-{job['clip']['sha256'][:12]}")
    gateway.backends.jobs.set_caption(job["id"], "a red square moves")
    again = gateway.submit(mp4, {}, idempotency_key=key)
    assert (again.status_code, again.json()["id"], again.json()["caption"]) == (200, job["id"], "a red square moves")
    assert gateway.submit(mp4, caption()).json()["caption_source"] == "given"


def test_jobs_are_listed_by_pages_and_filters(gateway: Gateway, mp4: bytes) -> None:
    job_request = caption()
    ids = [gateway.submit(mp4, job_request).json()["id"] for _ in range(3)]
    first = gateway.http.get("/v1/tuning-jobs", params={"model": job_request["model"], "limit": 2}).json()
    after = first["next_cursor"]
    second = gateway.http.get("/v1/tuning-jobs", params={"model": job_request["model"], "limit": 2, "after": after}).json()
    assert [job["id"] for job in first["data"] + second["data"]] == ids[::-1]
    assert (first["has_more"], second["has_more"], second["next_cursor"]) == (True, False, None)
    none = gateway.http.get("/v1/tuning-jobs", params={"model": job_request["model"], "status": "failed"}).json()
    assert none["data"] == []


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x", "status=done", "model=A%20B", "after=nope"])
def test_a_bad_query_is_422(gateway: Gateway, query: str) -> None:
    answer = gateway.http.get(f"/v1/tuning-jobs?{query}")
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request"), answer.text


def test_live_fields_come_from_the_scheduler(gateway: Gateway, mp4: bytes) -> None:
    job = TuningJob.model_validate(gateway.submit(mp4, caption()).json())
    live = {"status": JobStatus.running, "phase": JobPhase.tuning, "step": 7, "total_steps": 10, "loss": 0.5}
    gateway.scheduler.publish(job.model_copy(update=live))
    assert gateway.http.get(f"/v1/tuning-jobs/{job.id}").json()["step"] == 7
    listed = gateway.http.get("/v1/tuning-jobs", params={"model": job.model}).json()["data"]
    assert listed[0]["step"] == 7


def test_a_queued_job_is_cancelled_once_and_for_all(gateway: Gateway, mp4: bytes) -> None:
    path = gateway.submit(mp4, caption()).headers["location"]
    for _ in range(2):
        answer = gateway.http.post(f"{path}/cancel")
        assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")


def test_an_ended_job_cannot_be_cancelled(gateway: Gateway, version: Any) -> None:
    answer = gateway.http.post(f"/v1/tuning-jobs/{version.job_id}/cancel")
    assert (answer.status_code, answer.json()["code"]) == (409, "job_not_cancellable")


@pytest.mark.parametrize("call", ["GET {}", "GET {}/events", "POST {}/cancel"])
@pytest.mark.parametrize("job_id", ["nope", "f" * 32, "a'b", "%00"])
def test_an_unknown_job_is_404(gateway: Gateway, call: str, job_id: str) -> None:
    method, path = call.format(f"/v1/tuning-jobs/{job_id}").split()
    answer = gateway.http.request(method, path)
    assert (answer.status_code, answer.json()["code"]) == (404, "job_not_found"), answer.text


def test_followers_get_the_newest_snapshots_to_the_end(gateway: Gateway, mp4: bytes) -> None:
    job = TuningJob.model_validate(gateway.submit(mp4, caption()).json())
    running = [job.model_copy(update={"status": JobStatus.running, "step": step}) for step in range(4)]
    for snapshot in running:
        gateway.scheduler.publish(snapshot)
    with gateway.http.stream("GET", f"/v1/tuning-jobs/{job.id}/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        chunks = stream.iter_text()
        first = events(next(chunks))
        assert [(number, snapshot["step"]) for number, snapshot in first] == [(4, 3)]
        gateway.scheduler.publish(job.model_copy(update={"status": JobStatus.cancelled, "step": 9}))
        rest = events("".join(chunks))
    assert rest[-1][1]["status"] == "cancelled" and rest[-1][0] == 5
    replayed = gateway.http.get(f"/v1/tuning-jobs/{job.id}/events", headers={"Last-Event-ID": "2"}).text
    assert [number for number, _ in events(replayed)] == [3, 4, 5]


def test_an_ended_job_sends_one_snapshot_whatever_was_seen(gateway: Gateway, version: Any) -> None:
    for last in ("", "3", "999", "x"):
        text = gateway.http.get(
            f"/v1/tuning-jobs/{version.job_id}/events", headers={"Last-Event-ID": last} if last else {}
        ).text
        assert [snapshot["status"] for _, snapshot in events(text)] == ["succeeded"]


def test_followers_see_the_end_while_the_scheduler_is_away(gateway: Gateway, mp4: bytes) -> None:
    gateway.scheduler.away = True
    path = gateway.submit(mp4, caption()).headers["location"]
    with gateway.http.stream("GET", f"{path}/events") as stream:
        chunks = stream.iter_text()
        assert events(next(chunks))[0][1]["status"] == "queued"
        gateway.backends.jobs.cancel(path.rpartition("/")[2])
        assert events("".join(chunks))[-1][1]["status"] == "cancelled"


def test_an_upload_that_finds_the_disk_full_is_to_be_sent_again(
    gateway: Gateway, mp4: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(**_: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    job = caption()
    with monkeypatch.context() as patch:
        patch.setattr("services.scratch.tempfile.mkdtemp", full)
        answer = gateway.submit(mp4, job, idempotency_key="again")
    assert (answer.status_code, answer.json()["code"], "retry-after" in answer.headers) == (503, "disk_full", True)
    assert gateway.submit(mp4, job, idempotency_key="again").status_code == 201


def test_what_a_job_takes_is_told_before_it_is_submitted_and_kept_with_it(gateway: Gateway, mp4: bytes) -> None:
    params = {"steps": 40, "num_frames": 8, "memory": {"gradient_checkpointing": True}}
    response = gateway.http.post("/v1/estimates", json={"params": params, "videos": 1})
    assert response.status_code == 200, response.text
    estimates = Estimates.model_validate(response.json())
    [only] = estimates.settings
    assert (estimates.num_frames, estimates.size, estimates.steps) == (8, (64, 64), 40)
    assert only.memory.gradient_checkpointing and only.fits and set(only.phases) == {"tuning", "inversion", "sampling"}
    assert only.memory_error is not None  # a CPU has been measured
    job = TuningJob.model_validate(gateway.submit(mp4, caption(params=params, validation_prompts=["a blue ball"])).json())
    assert job.estimate is not None
    changing = {"device_memory_bytes"}
    assert job.estimate.model_dump(exclude=changing) == only.model_dump(exclude=changing)
    gateway.backends.jobs.set_estimate(job.id, only.model_copy(update={"seconds": 1.5}))
    assert gateway.http.get(f"/v1/tuning-jobs/{job.id}").json()["estimate"]["seconds"] == 1.5


def test_an_estimate_is_of_the_gpus_that_the_service_has_or_those_that_are_named(
    start_gateway: Callable[..., Gateway], mp4: bytes
) -> None:
    sd14 = "CompVis/stable-diffusion-v1-4"
    gateway = start_gateway(device="cuda", gpu_types=["L4", "A100-80G"], base=sd14, bases=["/models/sketches"])

    def estimate(**fields: Any) -> dict[str, Any]:
        answer = gateway.http.post("/v1/estimates", json=fields)
        return dict(answer.json())

    small, large = estimate(), estimate(device="A100-80G")
    assert {entry["device"] for entry in small["settings"]} == {"L4"} and len(small["settings"]) == 5
    assert small["size"] == [512, 512] and small["settings"][0]["memory_error"] is None
    assert not small["settings"][0]["fits"] and large["chosen"] < small["chosen"]
    assert "name one of cpu, T4" in estimate(device="abacus")["detail"]
    assert "'/models/sketches'" in estimate(base="/models/sketches")["detail"]
    job = gateway.submit(mp4, caption(base=sd14, gpu_type="A100-80G", params={"num_frames": 4})).json()
    assert job["estimate"]["device"] == "A100-80G"
    assert gateway.submit(mp4, caption(base="/models/sketches", params={"num_frames": 4})).json()["estimate"] is None


def test_without_any_gpu_known_an_estimate_asks_which(start_gateway: Callable[..., Gateway]) -> None:
    gateway = start_gateway(device="cuda", base="CompVis/stable-diffusion-v1-4")
    answer = gateway.http.post("/v1/estimates", json={})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert "name one of cpu, T4" in answer.json()["detail"]
