"""The command line `tav`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from fastapi import Response
from typer.testing import CliRunner

from tav_client import __version__
from tav_client.cli import _app

EVENTS = "/v1/tuning-jobs/j1/events"


def tav(*words: str) -> Any:
    return CliRunner().invoke(_app.app, words)


@pytest.fixture
def clip(tmp_path: Path) -> str:
    path = tmp_path / "ball.mp4"
    path.write_bytes(b"clip")
    return str(path)


def test_submit_prints_the_id_alone_on_stdout(service: Any, clip: str) -> None:
    service.on("POST", "/v1/tuning-jobs", service.ok(service.job(), 201))
    options = [
        "--steps",
        "5",
        "--size",
        "64x32",
        "--frame-start",
        "3",
        "--frame-stride",
        "2",
        "--validation-prompt",
        "a",
        "--validation-prompt",
        "b",
        "--metadata",
        "k=v=w",
        "--memory",
        "zero_stage=3,offload-params,precision=bf16",
    ]
    result = tav("jobs", "submit", clip, "--caption", "a red ball", *options)
    assert (result.exit_code, result.stdout) == (0, "j1\n")
    assert "tav jobs watch j1" in result.stderr
    sent = json.loads(service.asked[0].form["job"][1])
    memory = {"zero_stage": 3, "offload_params": True, "precision": "bf16"}
    assert sent == {
        "caption": "a red ball",
        "params": {"steps": 5, "size": [64, 32], "frame_start": 3, "frame_stride": 2, "memory": memory},
        "validation_prompts": ["a", "b"],
        "metadata": {"k": "v=w"},
    }


def test_submit_takes_a_stored_clip(service: Any) -> None:
    service.on("POST", "/v1/tuning-jobs", service.ok(service.job(), 201))
    assert tav("jobs", "submit", "s3://clips/a.mp4", "--caption", "x").exit_code == 0
    assert service.asked[0].json["clip_uri"] == "s3://clips/a.mp4"


def test_submit_and_wait_prints_the_version(service: Any, clip: str) -> None:
    service.on("POST", "/v1/tuning-jobs", service.ok(service.job(), 201))
    service.on("GET", EVENTS, service.events(service.job("succeeded", version=3)))
    assert tav("jobs", "submit", clip, "--caption", "x", "--wait").stdout == "red-ball/3\n"
    assert json.loads(tav("jobs", "submit", clip, "--caption", "x", "--wait", "--json").stdout)["version"] == 3


def test_a_failed_job_is_a_sentence_and_exit_code_1(service: Any) -> None:
    failed = service.job("failed", error={"code": "nan_loss", "message": "Lower the learning rate."})
    service.on("GET", "/v1/tuning-jobs/j1", service.ok(service.job()))
    service.on("GET", EVENTS, service.events(failed))
    result = tav("jobs", "watch", "j1")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == "tav: Tuning job j1 ended without a version: Lower the learning rate."


def test_watch_json_is_a_snapshot_a_line(service: Any) -> None:
    service.on("GET", "/v1/tuning-jobs/j1", service.ok(service.job()))
    service.on("GET", EVENTS, service.events(service.job("running"), service.job("succeeded", version=1)))
    result = tav("jobs", "watch", "j1", "--json")
    assert [json.loads(line)["status"] for line in result.stdout.splitlines()] == ["running", "succeeded"]
    assert result.stderr == ""


def test_lists_are_tables_or_json(service: Any) -> None:
    service.on("GET", "/v1/tuning-jobs", service.page(service.job(id="j2"), service.job(id="j1"), cursor="more"))
    service.on("GET", "/v1/models", service.page(service.model()))
    lines = tav("jobs", "list", "--limit", "2", "--status", "queued").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["ID", "j2", "j1"]
    assert service.asked[0].query == {"limit": "2", "status": "queued"}
    assert [job["id"] for job in json.loads(tav("jobs", "list", "--limit", "1", "--json").stdout)] == ["j2"]
    assert "@production=1" in tav("models", "list").stdout
    assert json.loads(tav("models", "list", "--json").stdout)[0]["name"] == "red-ball"


def test_one_thing_is_fields_or_json(service: Any) -> None:
    service.on("GET", "/v1/tuning-jobs/j1", service.ok(service.job(params={"steps": 7})))
    service.on("GET", "/v1/models/red-ball/versions/1", service.ok(service.version()))
    shown = tav("jobs", "show", "j1").stdout
    assert "steps=7" in shown
    assert "64x64, 24 frames at 12/s" in shown
    assert json.loads(tav("jobs", "show", "j1", "--json").stdout)["id"] == "j1"
    clip = {"uri": "s3://b/c", "sha256": "9b", "width": 1920, "height": 1080, "num_frames": 234, "fps": 29.21996488}
    how = {"duration": 7.99, "codec": "hevc", "notes": ["1080x1920 as stored", "tone-mapped from HLG"]}
    service.on("GET", "/v1/tuning-jobs/j2", service.ok(service.job(clip=clip | how)))
    shown = tav("jobs", "show", "j2").stdout
    assert "1920x1080, 234 frames at 29.22/s (8.0 s), hevc" in shown and "1080x1920 as stored; tone-mapped from HLG" in shown
    assert "delta.safetensors" in tav("models", "show", "red-ball/1").stdout
    assert json.loads(tav("models", "show", "red-ball/1", "--json").stdout)["version"] == 1


def test_cancel_says_where_the_job_stands(service: Any) -> None:
    service.on("POST", "/v1/tuning-jobs/j1/cancel", service.ok(service.job("cancelled")), service.ok(service.job("running")))
    assert tav("jobs", "cancel", "j1").stdout == "j1 cancelled\n"
    assert "stops at its next step" in tav("jobs", "cancel", "j1").stdout


def test_a_video_is_written_where_it_was_asked(service: Any, tmp_path: Path) -> None:
    service.on("POST", "/v1/videos", service.ok(service.video("completed")))
    service.on("GET", "/v1/videos/v1/content", Response(b"bytes", media_type="video/mp4"))
    out = tmp_path / "blue.mp4"
    asking = ["--model", "red-ball", "--prompt", "a blue ball", "--steps", "9", "--no-inverted-latents"]
    asking += ["--scheduler", "unipc", "--size", "96x64", "--num-frames", "3"]
    asking += ["--guidance-interval", "0-0.6", "--cache-interval", "2"]
    result = tav("videos", "create", *asking, "-o", str(out))
    assert (result.stdout, out.read_bytes()) == (f"{out}\n", b"bytes")
    assert service.asked[0].json == {
        "model": "red-ball",
        "prompt": "a blue ball",
        "format": "mp4",
        "num_inference_steps": 9,
        "scheduler": "unipc",
        "guidance_interval": [0.0, 0.6],
        "cache_interval": 2,
        "use_inverted_latents": False,
        "num_frames": 3,
        "size": [96, 64],
    }


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["jobs", "show", "nope"], 1, "tav: There is no /v1/tuning-jobs/nope. (request req-7)"),
        (["jobs", "submit", "nowhere.mp4", "--caption", "x"], 1, "tav: There is no file 'nowhere.mp4'"),
        (["--url", "nonsense", "models", "list"], 1, "tav: 'nonsense' is not the address of a service"),
        (["jobs", "submit", "a.mp4", "--caption", "x", "--size", "big"], 2, "'big' is not WIDTHxHEIGHT"),
        (["jobs", "submit", "a.mp4", "--caption", "x", "--metadata", "k"], 2, "'k' is not KEY=VALUE"),
        (["jobs", "submit", "a.mp4", "--memory", "zero_stage=7"], 1, 'tav: zero_stage must be 1, 2 or 3, not "7"'),
        (["jobs", "submit", "a.mp4", "--memory", "swap"], 1, "tav: There is no field swap"),
        (["jobs", "list", "--status", "done"], 2, "'done' is not one of"),
        (["jobs", "sing"], 2, "No such command 'sing'"),
    ],
)
def test_errors_are_a_sentence_on_stderr(service: Any, words: list[str], code: int, sentence: str) -> None:
    result = tav(*words)
    assert result.exit_code == code
    assert result.stdout == ""
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr


def test_a_place_that_cannot_be_written_is_a_sentence(service: Any, tmp_path: Path) -> None:
    service.on("POST", "/v1/videos", service.ok(service.video("completed")))
    service.on("GET", "/v1/videos/v1/content", Response(b"bytes"))
    (tmp_path / "file").write_text("")
    result = tav("videos", "create", "--model", "m", "--prompt", "p", "-o", str(tmp_path / "file" / "a.mp4"))
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith("tav: ")


def test_platform_without_the_server_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name="services")

    monkeypatch.setattr(_app.importlib, "import_module", missing)
    result = tav("platform", "up")
    assert result.exit_code == 1
    assert "pip install 'tav[service]'" in result.stderr


def test_platform_hands_its_words_to_the_server_package(monkeypatch: pytest.MonkeyPatch) -> None:
    server = typer.Typer()

    @server.command()
    def up(port: int = 0) -> None:
        typer.echo(f"up on {port}")

    @server.command()
    def down() -> None:
        raise typer.Exit(3)

    monkeypatch.setattr(_app.importlib, "import_module", lambda name: type("Module", (), {"app": server}))
    assert "up on 9" in tav("platform", "up", "--port", "9").stdout
    assert tav("platform", "down").exit_code == 3
    assert "down" in tav("platform", "--help").stdout


def test_the_installed_command_works_as_a_process(service: Any) -> None:
    command = [str(Path(sys.executable).with_name("tav")), "--url", service.url]
    service.on("GET", "/v1/models", service.page(service.model()))
    listed = subprocess.run([*command, "models", "list", "--json"], capture_output=True, text=True, check=True)
    assert json.loads(listed.stdout)[0]["name"] == "red-ball"
    assert service.asked[0].headers["user-agent"].startswith(f"tav-client/{__version__} ")
    missing = subprocess.run([*command, "jobs", "show", "nope"], capture_output=True, text=True, check=False)
    assert (missing.returncode, missing.stdout, len(missing.stderr.splitlines())) == (1, "", 1)
