"""The one-machine stack: up twice, down to nothing, and clear words where it cannot."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from typer.testing import CliRunner

from registry.errors import StorageUnavailable
from registry.objects import ObjectStore
from services.platform import PlatformError, PlatformSettings, PortInUse, Stack, processes
from services.platform.errors import PartFailed
from tav_client.cli import _app


def settings_in(folder: Path, **fields: object) -> PlatformSettings:
    return PlatformSettings(data_dir=folder).with_free_ports().model_copy(update=fields)


def everything_of(stack: Stack) -> list[psutil.Process]:
    marked = processes.marked(f"{stack.root}:")
    return [*marked, *(child for process in marked for child in process.children(recursive=True))]


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Stack]:
    """A stack that is not the session's."""
    stack = Stack(settings_in(tmp_path / "data"))
    yield stack
    stack.down()


def test_a_second_up_starts_nothing(s3_server: Stack) -> None:
    before = {p.pid for p in everything_of(s3_server)}
    (row,) = s3_server.up(["s3"])
    assert (row.state, row.seconds) == ("running", None)
    assert {p.pid for p in everything_of(s3_server)} == before


def test_down_leaves_no_process_and_keeps_the_data(own: Stack) -> None:
    own.up(["s3"])
    ObjectStore(own.settings()).put_bytes(b"kept", "a/b")
    running = everything_of(own)
    assert running
    own.down()
    assert [p for p in running if p.is_running()] == []
    assert {row.state for row in own.status()} == {"stopped"}
    own.up(["s3"])
    assert ObjectStore(own.settings()).get_bytes("s3://tav/a/b") == b"kept"


def test_what_the_stack_keeps_is_its_owners_alone_also_what_an_earlier_release_made(own: Stack) -> None:
    own.root.mkdir(mode=0o755)
    own.root.chmod(0o755)
    own.up(["s3"])
    assert stat.S_IMODE(own.root.stat().st_mode) == 0o700


def test_another_command_finds_the_stack_again(own: Stack) -> None:
    own.up(["s3"])
    other = Stack(settings_in(own.root))
    assert other.status()[0].pid == own.status()[0].pid
    assert other.settings() == own.settings()
    other.down()
    assert everything_of(own) == []


def test_up_after_a_crash_starts_what_died(own: Stack) -> None:
    (first,) = own.up(["s3"])
    os.kill(first.pid or 0, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(first.pid)], timeout=10)
    assert own.status()[0].state == "crashed"
    (second,) = own.up(["s3"])
    assert second.state == "running"
    assert (second.pid, second.address) != (first.pid, None)


def test_a_pid_file_that_names_somebody_elses_process_is_not_believed(own: Stack) -> None:
    own.up(["s3"])
    pid_file = own.root / "run" / "s3.json"
    record = json.loads(pid_file.read_text())
    own.down()
    pid_file.write_text(json.dumps({**record, "pid": os.getpid()}))
    assert own.status()[0].state == "crashed"
    own.down()


def test_a_port_in_use_is_named_with_its_user_and_the_way_out(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        stack = Stack(settings_in(tmp_path / "data", s3_port=port))
        with pytest.raises(
            PortInUse, match=rf"Port {port} .*the S3 server.* in use by .*pid {os.getpid()}.*--s3-port"
        ) as caught:
            stack.up(["s3"])
        assert "TAV_S3_PORT" in str(caught.value)
    assert everything_of(stack) == []


def test_two_parts_may_not_share_a_port(tmp_path: Path) -> None:
    stack = Stack(settings_in(tmp_path / "data", s3_port=39001, mlflow_port=39001))
    with pytest.raises(PlatformError, match="would share a port"):
        stack.up(["s3"])


def test_a_part_that_dies_shows_the_end_of_its_log(tmp_path: Path) -> None:
    log = tmp_path / "part.log"
    process = processes.spawn([sys.executable, "-c", "raise SystemExit('no such luck')"], dict(os.environ), log)
    with pytest.raises(PartFailed, match=r"the part ended before it was ready(?s:.*)no such luck"):
        processes.wait_ready(process, lambda: False, 30, "the part", log)


def test_a_part_that_never_gets_ready_is_given_up_and_stopped(own: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ObjectStore, "ensure_bucket", lambda _: (_ for _ in ()).throw(StorageUnavailable("not yet")))
    slow = Stack(settings_in(own.root, ready_seconds=0.5))
    with pytest.raises(PartFailed, match=r"the S3 server was not ready within 0.5 seconds; TAV_READY_SECONDS"):
        slow.up(["s3"])
    assert everything_of(slow) == []


def test_secrets_are_for_the_owner_alone(s3_server: Stack) -> None:
    for name in ("s3-keys.json", "stack.env", "ray-token"):
        assert stat.S_IMODE((s3_server.root / name).stat().st_mode) == 0o600


def test_the_environment_file_leads_another_program_to_the_stack(s3_server: Stack) -> None:
    script = "from services.settings import Settings; s = Settings(); print(s.s3_endpoint_url, s.mlflow_tracking_uri)"
    shell = f"set -a; . {s3_server.root}/stack.env; {sys.executable} -c '{script}'"
    printed = subprocess.run(["sh", "-c", shell], check=True, capture_output=True, text=True).stdout.split()
    settings = s3_server.settings()
    assert printed == [settings.s3_endpoint_url, settings.mlflow_tracking_uri]


def test_listening_beyond_loopback_needs_keys(tmp_path: Path) -> None:
    stack = Stack(settings_in(tmp_path / "data", host="0.0.0.0"))
    with pytest.raises(PlatformError, match=r"may not listen on 0\.0\.0\.0 without keys.*TAV_API_KEYS_FILE"):
        stack.up(["s3"])


def tav(*words: object) -> Any:
    return CliRunner().invoke(_app.app, [str(word) for word in words])


def test_the_command_line_brings_up_tells_and_takes_down(tmp_path: Path) -> None:
    where = ("--data-dir", tmp_path / "data")
    assert "ready after" in tav("platform", "up", *where, "--free-ports", "--part", "s3").stdout
    assert "already running" in tav("platform", "up", *where, "--free-ports", "--part", "s3").stdout
    rows = json.loads(tav("platform", "status", *where, "--json").stdout)
    assert [(row["name"], row["state"]) for row in rows][:2] == [("s3", "running"), ("mlflow", "stopped")]
    assert tav("platform", "status", *where).stdout.split()[:6] == ["PART", "STATE", "PID", "ADDRESS", "s3", "running"]
    assert "Nothing is running" in tav("platform", "down", *where).stdout
    wrong = tav("platform", "up", *where, "--part", "gpu")
    assert (wrong.exit_code, wrong.stderr) == (1, "tav: There is no part gpu; the parts are s3, mlflow, ray, services.\n")


def test_one_command_prints_the_stacks_variables_or_runs_with_them(s3_server: Stack, tmp_path: Path) -> None:
    tav_command, where = str(Path(sys.executable).with_name("tav")), ["--data-dir", str(s3_server.root)]
    shell = f'eval "$({tav_command} platform env --data-dir {s3_server.root})"; echo $TAV_S3_ENDPOINT_URL $MLFLOW_TRACKING_URI'
    printed = subprocess.run(["sh", "-c", shell], check=True, capture_output=True, text=True, cwd=tmp_path).stdout.split()
    settings = s3_server.settings()
    assert printed == [settings.s3_endpoint_url, settings.mlflow_tracking_uri]
    script = (
        "import sys, os, mlflow.environment_variables as e; print(os.environ['TAV_S3_ENDPOINT_URL'], sys.argv[1:], "
        "e.MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT.get())"
    )
    environment = {name: value for name, value in os.environ.items() if name == "PYTHONPATH"} | {"PATH": "/usr/bin"}
    for dashes in ([], ["--"]):
        command = [tav_command, "platform", "env", *where, *dashes, "python", "-c", script, "-m", "x", "--data-dir", "mine"]
        ran = subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path, env=environment)
        assert ran.stdout == f"{settings.s3_endpoint_url} ['-m', 'x', '--data-dir', 'mine'] 3600\n", ran.stderr


def test_the_stack_of_the_folder_is_found_without_being_named(
    s3_server: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".data").symlink_to(s3_server.root)
    assert f"export TAV_DATA_DIR={s3_server.root}" in tav("platform", "env").stdout
    monkeypatch.setenv("TAV_DATA_DIR", str(tmp_path / "elsewhere"))
    nothing = tav("platform", "env")
    assert (nothing.exit_code, nothing.stdout) == (1, "")
    assert f"No stack runs in {tmp_path}/elsewhere: start it with `tav platform up --data-dir" in nothing.stderr


def test_a_program_that_is_not_there_is_a_sentence(s3_server: Stack) -> None:
    result = tav("platform", "env", "--data-dir", s3_server.root, "--", "no-such-program")
    assert (result.exit_code, result.stderr) == (1, "tav: There is no program 'no-such-program' to run with these variables.\n")


@pytest.mark.slow
def test_ray_comes_up_with_the_settings_takes_no_stranger_and_leaves_nothing(own: Stack) -> None:
    own.up(["ray"])
    script = """
import os, ray, sys
ray.init(address="auto", log_to_driver=False)

@ray.remote(num_cpus=0)
class Stays:
    def settings(self):
        from services.settings import Settings
        return Settings().s3_endpoint_url

stays = Stays.options(name="stays", namespace="tav", lifetime="detached").remote()
print(ray.get(stays.settings.remote()))
"""
    environment = {**os.environ, **own.environment()}
    ran = subprocess.run([sys.executable, "-c", script], env=environment, check=True, capture_output=True, text=True)
    assert ran.stdout.split() == [own.settings().s3_endpoint_url]
    stranger = {**environment, "RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN_PATH": ""}
    assert subprocess.run([sys.executable, "-c", script], env=stranger, check=False, capture_output=True).returncode != 0
    running = everything_of(own)
    assert "raylet" in {p.name() for p in running}
    os.kill(own.status()[2].pid or 0, signal.SIGKILL)
    own.down()
    assert [p for p in running if p.is_running() and p.status() != psutil.STATUS_ZOMBIE] == []
    assert not own.ray_folder.exists() or own.ray_folder.is_relative_to(own.root)


def test_mlflows_database_lets_readers_and_a_writer_pass_each_other(mlflow_server: Stack) -> None:
    with closing(sqlite3.connect(mlflow_server.root / "mlflow.db")) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_gc_removes_the_rows_of_deleted_runs_and_no_others(mlflow_server: Stack) -> None:
    client = MlflowClient(mlflow_server.mlflow_url)
    experiment = client.create_experiment(f"gc-{uuid.uuid4().hex[:8]}")
    present, deleted = (client.create_run(experiment).info.run_id for _ in range(2))
    client.delete_run(deleted)
    said = tav("platform", "gc", "--data-dir", mlflow_server.root)
    assert said.exit_code == 0 and "removed for good" in said.output, said.output
    assert client.get_run(present).info.lifecycle_stage == "active"
    with pytest.raises(MlflowException, match="not found"):
        client.get_run(deleted)


def test_gc_of_a_stack_that_does_not_run_says_what_to_do(own: Stack) -> None:
    with pytest.raises(PlatformError, match="tav platform up"):
        own.gc()


def test_the_address_of_mlflow_that_is_printed_leads_to_the_runs_of_training(mlflow_server: Stack) -> None:
    root, _, place = mlflow_server.runs_url.partition("/#/")
    assert root == mlflow_server.mlflow_url
    assert re.fullmatch(r"experiments/[0-9]+/runs\?workflowType=machine_learning", place)
