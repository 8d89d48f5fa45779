"""What HTTP has, the command line has: every field of a request, and what is done with jobs, models and videos."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import typer
from fastapi import Response
from fastapi.responses import StreamingResponse

from tav_client import schemas
from tav_client.cli import _app
from tests.client.test_client_cli import clip as clip
from tests.client.test_client_cli import tav
from tests.client.test_client_videos import BYTES, content

ARGUMENTS = {"clip_uri": "clip", "validation_prompts": "validation_prompt"}
"""Fields that are given in another way than by an option of their name."""


def parameters(*words: str) -> dict[str, Any]:
    """A command's parameters by their name in Python, which is the field's."""
    command: Any = typer.main.get_command(_app.app)
    for word in words:
        command = command.commands[word]
    return {parameter.name: parameter for parameter in command.params}


@pytest.mark.parametrize(
    ("words", "request_of", "nested"),
    [
        (("jobs", "submit"), schemas.TuningJobCreate, {"params": schemas.TuningParams}),
        (("jobs", "estimate"), schemas.EstimateCreate, {"params": schemas.TuningParams}),
        (("videos", "create"), schemas.VideoCreate, {}),
    ],
)
def test_every_field_of_a_request_is_an_option(words: tuple[str, ...], request_of: Any, nested: dict[str, Any]) -> None:
    fields = set(request_of.model_fields) - set(nested)
    for schema in nested.values():
        fields |= set(schema.model_fields)
    missing = {field for field in fields if ARGUMENTS.get(field, field) not in parameters(*words)}
    assert missing == set(), "give the command an option for it"
    assert all(parameter.help for parameter in parameters(*words).values() if parameter.param_type_name == "option")


def test_an_option_that_is_one_of_some_words_names_them(service: Any) -> None:
    refused = tav("videos", "create", "--model", "m", "--prompt", "p", "-o", "a.mp4", "--scheduler", "euler")
    assert refused.exit_code == 2 and "'dpmpp_2m'" in refused.stderr
    assert service.asked == []


def test_what_is_given_as_options_is_what_is_sent(service: Any, clip: str) -> None:
    service.on("POST", "/v1/tuning-jobs", service.ok(service.job(), 201))
    asked = {
        "model": "red-ball",
        "base": "offline",
        "validation_prompts": ["a"],
        "priority": 3,
        "gpus": 2,
        "gpu_type": "A100",
        "queue_deadline_seconds": 60,
        "run_deadline_seconds": 600,
        "batch": "b",
        "metadata": {"k": "v"},
        "caption": "x",
        "truncate": "error",
        "params": {
            "steps": 5,
            "num_frames": 4,
            "size": [64, 32],
            "frame_start": 1,
            "frame_stride": 2,
            "learning_rate": 0.5,
            "seed": 7,
            "attention": "causal",
            "group_norm": "frame",
            "gradient_checkpointing": False,
            "memory": "auto",
        },
    }
    assert set(asked["params"]) == set(schemas.TuningParams.model_fields)
    assert set(asked) == set(schemas.TuningJobCreate.model_fields) - {"clip_uri"}
    words = ["--model", "red-ball", "--base", "offline", "--validation-prompt", "a", "--priority", "3", "--gpus", "2"]
    words += ["--gpu-type", "A100", "--queue-deadline", "60", "--run-deadline", "600", "--batch", "b", "--metadata", "k=v"]
    words += [
        "--caption",
        "x",
        "--truncate",
        "error",
        "--steps",
        "5",
        "--num-frames",
        "4",
        "--size",
        "64x32",
        "--frame-start",
        "1",
    ]
    words += ["--frame-stride", "2", "--learning-rate", "0.5", "--seed", "7", "--attention", "causal", "--group-norm", "frame"]
    assert tav("jobs", "submit", clip, *words, "--no-gradient-checkpointing", "--memory", "auto").exit_code == 0
    assert json.loads(service.asked[0].form["job"][1]) == asked


def test_a_large_clip_goes_to_s3_directly(service: Any, clip: str) -> None:
    upload = schemas.Upload(url=f"{service.url}/tav/uploads/5a", headers={}, clip_uri="s3://tav/uploads/5a", expires_at=9.0)
    service.on("POST", "/v1/uploads", service.ok(upload, 201))
    service.on("PUT", "/tav/uploads/5a", Response())
    service.on("POST", "/v1/tuning-jobs", service.ok(service.job(), 201))
    assert tav("jobs", "submit", clip, "--direct", "--caption", "x").stdout == "j1\n"
    assert service.asked[1].body == b"clip"
    assert service.asked[2].json == {"caption": "x", "clip_uri": "s3://tav/uploads/5a"}


def estimates() -> schemas.Estimates:
    numbers = {"device_memory_bytes": 5, "peak_memory_bytes": 3 * 2**30, "host_memory_bytes": 0, "seconds": 90.0}
    one = {"device": "L4", "phases": {}, "memory_error": None, "time_error": None} | numbers
    settings = [
        one | {"memory": {"zero_stage": 1, "precision": "bf16"}, "fits": False},
        one | {"memory": {"zero_stage": 3, "offload_params": True}, "fits": True},
    ]
    fields = {"num_frames": 8, "size": [64, 48], "steps": 5, "videos": 1, "gpus": 1, "settings": settings, "chosen": 1}
    return schemas.Estimates.model_validate(fields)


def test_the_services_estimate_is_a_table(service: Any) -> None:
    service.on("POST", "/v1/estimates", service.ok(estimates()))
    shown = tav("jobs", "estimate", "--steps", "5", "--gpus", "2", "--device", "L4", "--videos", "2").stdout.splitlines()
    assert service.asked[0].json == {"params": {"steps": 5}, "gpus": 2, "device": "L4", "videos": 2}
    assert shown[0] == "8 frames of 64x48, 5 steps, 1 video"
    assert shown[2].split() == ["zero_stage=1,precision=bf16", "L4", "3.0", "GiB", "1", "min", "30", "s", "no"]
    assert shown[3].split()[:2] == ["→", "zero_stage=3,offload_params"]
    assert json.loads(tav("jobs", "estimate", "--json").stdout)["chosen"] == 1


def test_jobs_are_listed_by_their_metadata(service: Any) -> None:
    service.on("GET", "/v1/tuning-jobs", service.page(service.job()))
    assert tav("jobs", "list", "--metadata", "who=me", "--metadata", "what=x").exit_code == 0
    assert service.asked[0].query == {"metadata.who": "me", "metadata.what": "x", "limit": "20"}


def test_videos_are_listed_shown_downloaded_and_deleted(service: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    done = service.video("completed", progress=100, seconds="2", size="64x64", request={"model": "m", "prompt": "p", "seed": 7})
    service.on("GET", "/v1/videos", service.page(done, service.video(id="v0")))
    service.on("GET", "/v1/videos/v1", service.ok(done))
    service.on("GET", "/v1/videos/v1/content", content(), content(), content("image/jpeg"))
    service.on("DELETE", "/v1/videos/v1", service.ok(schemas.VideoDeleted(id="v1")))
    rows = tav("videos", "list", "--model", "red-ball", "--order", "asc", "--limit", "2").stdout.splitlines()
    assert service.asked[0].query == {"model": "red-ball", "order": "asc", "limit": "2"}
    assert [row.split()[0] for row in rows] == ["ID", "v1", "v0"] and "a blue ball" in rows[1]
    assert [video["id"] for video in json.loads(tav("videos", "list", "--json").stdout)] == ["v1", "v0"]
    shown = tav("videos", "show", "v1").stdout
    assert "seed=7" in shown and "mp4  64x64  2 s" in shown
    assert tav("videos", "download", "v1").stdout == "v1.mp4\n"
    assert tav("videos", "download", "v1", "-o", "new/blue.mp4").stdout == "new/blue.mp4\n"
    assert tav("videos", "download", "v1", "--variant", "thumbnail").stdout == "v1-thumbnail.jpg\n"
    assert service.asked[-1].query == {"variant": "thumbnail"}
    assert [path.read_bytes() for path in (Path("v1.mp4"), Path("new/blue.mp4"), Path("v1-thumbnail.jpg"))] == [BYTES] * 3
    refused = tav("videos", "download", "v1", "-o", "blue.avi")
    assert refused.exit_code == 1 and "blue.avi" in refused.stderr and not Path("blue.avi").exists()
    assert tav("videos", "delete", "v1").stdout == "v1 deleted\n"


def test_a_video_is_watched_to_its_end(service: Any) -> None:
    service.on("GET", "/v1/videos/v1", service.ok(service.video("completed", progress=100)))
    assert tav("videos", "watch", "v1").stdout == "v1 completed\n"
    going, done = service.video("in_progress", progress=50), service.video("completed", progress=100)
    blocks = "".join(f"id: {i}\nevent: video\ndata: {v.model_dump_json()}\n\n" for i, v in enumerate((going, done), 1))
    service.on("GET", "/v1/videos/v1/events", Response(blocks, media_type="text/event-stream"))
    lines = tav("videos", "watch", "v1", "--json").stdout.splitlines()
    assert [json.loads(line)["status"] for line in lines] == ["in_progress", "completed"]


def test_a_video_of_which_nothing_is_kept_comes_by_the_synchronous_call(service: Any, tmp_path: Path) -> None:
    service.on("POST", "/v1/videos/sync", content("image/gif"))
    out = str(tmp_path / "a.gif")
    assert (
        tav("videos", "create", "--model", "m", "--prompt", "p", "--seconds", "2", "--no-record", "-o", out).stdout
        == f"{out}\n"
    )
    assert service.asked[0].json == {"model": "m", "prompt": "p", "seconds": 2.0, "format": "gif", "record": False}


def test_models_are_named_listed_by_version_and_deleted(service: Any) -> None:
    service.on(
        "GET", "/v1/models/red-ball/versions", service.page(service.version(2), cursor="c"), service.page(service.version(1))
    )
    service.on("PUT", "/v1/models/red-ball/aliases/production", service.ok(service.model()))
    service.on("DELETE", "/v1/models/red-ball/aliases/production", service.ok(service.model()))
    service.on("DELETE", "/v1/models/red-ball", service.ok(schemas.ModelDeleted(name="red-ball")))
    service.on("DELETE", "/v1/models/red-ball/versions/2", service.ok(schemas.ModelVersionDeleted(name="red-ball", version=2)))
    rows = tav("models", "versions", "red-ball").stdout.splitlines()
    assert [row.split()[0] for row in rows] == ["VERSION", "red-ball/2", "red-ball/1"] and "8 of 64x64" in rows[1]
    assert tav("models", "alias", "red-ball", "production", "2").stdout == "red-ball@production is red-ball/2\n"
    assert service.asked[-1].json == {"version": 2}
    assert tav("models", "alias", "red-ball", "production", "--delete").stdout == "red-ball@production deleted\n"
    assert tav("models", "delete", "red-ball/2").stdout == "red-ball/2 deleted\n"
    assert tav("models", "delete", "red-ball").stdout == "red-ball deleted\n"
    assert service.asked[-1].path == "/v1/models/red-ball"


@pytest.mark.parametrize(
    "words",
    [["alias", "m", "a"], ["alias", "m", "a", "1", "--delete"], ["delete", "m/x"], ["delete", "m@a"], ["delete", "m/"]],
)
def test_what_is_half_said_about_a_model_changes_nothing(service: Any, words: list[str]) -> None:
    assert tav("models", *words).exit_code == 2
    assert service.asked == []


def test_a_log_is_followed_over_cuts_to_its_end_and_nothing_comes_twice(service: Any) -> None:
    text = "one\nzwei ü\nthree\n".encode()

    async def cut() -> Any:
        yield text[:10]  # in the middle of the ü
        raise ConnectionAbortedError

    logs = "/v1/tuning-jobs/j1/logs"
    broken = StreamingResponse(cut(), media_type="text/plain")
    away = service.problem(503, "storage_unavailable", retry_after_ms="1")
    ended_early = Response(text[:13], media_type="text/plain")  # a gateway that was stopped
    service.on("GET", logs, broken, away, ended_early, Response(text[:-6]), Response(text))
    service.on("GET", "/v1/tuning-jobs/j1", service.ok(service.job("running")), service.ok(service.job("succeeded", version=1)))
    result = tav("jobs", "logs", "j1", "--follow")
    assert (result.exit_code, result.stdout) == (0, text.decode())
    queries = [asked.query for asked in service.asked if asked.path == logs]
    assert queries == [{"follow": "true"}] * 4 + [{}]


@contextmanager
def running(service: Any, *words: str) -> Iterator[subprocess.Popen[str]]:
    """The command as a process of its own, which a terminal's Ctrl-C would reach."""
    command = [str(Path(sys.executable).with_name("tav")), "--url", service.url, *words]
    heard = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it, and so would it
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    finally:
        signal.signal(signal.SIGINT, heard)
    with process:
        try:
            yield process
        finally:
            process.kill()


def never_ending(service: Any) -> Any:
    import asyncio

    async def events() -> Any:
        yield f"id: 1\nevent: job\ndata: {service.job('running', phase='tuning', step=1, total_steps=9).model_dump_json()}\n\n"
        for _ in range(100):
            await asyncio.sleep(0.1)
            yield ": keep-alive\n\n"

    return lambda _: StreamingResponse(events(), media_type="text/event-stream")


def interrupted(process: subprocess.Popen[str], until: str) -> tuple[int, str]:
    """Ctrl-C once a line with these words has come; exit code and what was said after it."""
    assert process.stderr is not None
    for line in process.stderr:
        if until in line:
            break
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=30)
    return process.returncode, said


def test_ctrl_c_on_a_job_says_that_it_goes_on_and_how_to_end_it(service: Any, clip: str) -> None:
    service.on("POST", "/v1/tuning-jobs", service.ok(service.job(), 201))
    service.on("GET", "/v1/tuning-jobs/j1", service.ok(service.job()))
    service.on("GET", "/v1/tuning-jobs/j1/events", never_ending(service))
    service.on("GET", "/v1/tuning-jobs/j1/logs", never_ending(service))
    for words in (["submit", clip, "--caption", "x", "--wait"], ["watch", "j1"]):
        with running(service, "jobs", *words) as process:
            code, said = interrupted(process, "tuning")
        assert code == 130 and "Traceback" not in said
        assert f"tav --url {service.url} jobs cancel j1" in said and f"tav --url {service.url} jobs watch j1" in said


def test_ctrl_c_on_a_video_says_how_to_fetch_it_and_how_to_end_it(service: Any, tmp_path: Path) -> None:
    service.on("POST", "/v1/videos", service.ok(service.video()))
    service.on("GET", "/v1/videos/v1", service.ok(service.video("in_progress", progress=1), openai_poll_after_ms="50"))
    out = str(tmp_path / "a.mp4")
    with running(service, "videos", "create", "--model", "m", "--prompt", "p", "-o", out) as process:
        code, said = interrupted(process, "in progress")
    assert code == 130 and "Traceback" not in said
    assert f"videos download v1 -o {out}" in said and "videos delete v1" in said
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_on_a_batch_says_how_to_end_it(service: Any) -> None:
    counted = schemas.Batch(id="davis", total=1, counts={"running": 1}, finished=False)
    service.on("GET", "/v1/batches/davis", service.ok(counted))
    service.on("GET", "/v1/tuning-jobs", service.page(service.job("running")))
    with running(service, "jobs", "watch", "--batch", "davis") as process:
        code, said = interrupted(process, "davis: 1 jobs")
    assert code == 130 and "jobs cancel --batch davis" in said and "Traceback" not in said
