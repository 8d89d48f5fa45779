"""MLflow on PostgreSQL, as clusters have it: the registry's tests once more, and a registry saved, lost and brought back."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3
import mlflow
import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from registry.jobs import JobStore
from registry.objects import ObjectStore
from registry.registration import VersionInfo
from registry.versions import VersionStore
from services.cli.cluster import app
from services.cluster.settings import ClusterError
from services.platform import PlatformSettings, Stack
from tav_client.schemas import ClipInfo, TuningJobCreate
from tests.deploy import servers
from tests.deploy.machines import CHECKOUT
from tests.registry.conftest import write_untuned_result
from tests.tav.conftest import write_random_base

pytestmark = pytest.mark.slow

_ON_MLFLOW = ("copies", "jobs", "migration", "pictures", "refusals", "removal", "tenants", "versions", "videos")
ON_MLFLOW = [f"tests/registry/test_{name}.py" for name in _ON_MLFLOW]


def test_the_registrys_tests_pass_on_postgresql() -> None:
    servers.require_servers("postgres", "runuser")
    with servers.postgresql("127.0.0.1") as database:
        tests = [
            *ON_MLFLOW,
            "tests/api/test_refusals.py",
            "tests/platform/test_stack.py::test_gc_removes_the_rows_of_deleted_runs_and_no_others",
        ]
        # What a server that is away leads to does not depend on the database, and takes long.
        others = "not outage and not mlflow_that_is_down"
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-k", others, *tests]
        environment = os.environ | {"TAV_MLFLOW_DATABASE": database}
        done = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, timeout=900, check=False)
        said = done.stdout[-3000:] + done.stderr[-2000:]
        assert done.returncode == 0, said
        # It was PostgreSQL that they wrote to: what they left is there.
        assert int(servers.query(database, "select count(*) from runs")) > 10, said


@contextmanager
def stack_on(database: str, folder: Path) -> Iterator[Stack]:
    """S3, and MLflow when it is asked for, on a database, in a new data directory."""
    stack = Stack(PlatformSettings(data_dir=folder, mlflow_database=SecretStr(database)).with_free_ports())
    try:
        stack.up(["s3"])
        yield stack
    finally:
        stack.down()


def sample(model: str) -> bytes:
    """A video of it, through MLflow's own loading."""
    [video] = mlflow.pyfunc.load_model(f"models:/{model}").predict([{"prompt": "a ball"}], params={"num_inference_steps": 2})
    content: bytes = video["video"]
    return content


def cluster_command(word: str, folder: Path) -> None:
    """`tav cluster WORD FOLDER`, with the environment's settings."""
    done = CliRunner().invoke(app, [word, str(folder)])
    if done.exception is not None:
        raise done.exception


def test_a_registry_that_was_lost_is_brought_back_and_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    servers.require_servers("postgres", "runuser")
    saved, clip = tmp_path / "saved", tmp_path / "clip.mp4"
    clip.write_bytes(b"not really a video")
    result = write_untuned_result(write_random_base(tmp_path / "base", seed=0), tmp_path / "result")

    def use(stack: Stack) -> None:
        for variable, value in stack.environment().items():
            monkeypatch.setenv(variable, value)
        monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # it would keep the keys that it found first

    with servers.postgresql("127.0.0.1") as database:
        monkeypatch.setenv("TAV_CLUSTER_MLFLOW_DATABASE", database)
        with stack_on(database, tmp_path / "first") as first:
            first.up(["s3", "mlflow"])
            use(first)
            settings = first.settings()
            stored = ObjectStore(settings).put_clip(clip)
            of = ClipInfo(uri=stored.uri, sha256=stored.sha256, width=64, height=64, num_frames=8, fps=8)
            jobs = JobStore(settings)
            job = jobs.create(TuningJobCreate(caption="a ball"), of, base="offline", model="ball")
            VersionStore(settings).register(job, result, VersionInfo("offline", "f" * 64, "a ball", 2, (16, 16)))
            version = VersionStore(settings).set_alias("ball", "production", 1)
            job, before = jobs.get(job.id), sample("ball@production")
            cluster_command("backup", saved)
            with pytest.raises(ClusterError, match="is not empty"):
                cluster_command("restore", saved)
        shutil.rmtree(tmp_path / "first")
        servers.query(database, "drop schema public cascade; create schema public")
        with stack_on(database, tmp_path / "second") as second:
            use(second)
            settings = second.settings()
            monkeypatch.setenv("TAV_S3_BUCKET", "another")
            with pytest.raises(ClusterError, match="is of the bucket tav"):
                cluster_command("restore", saved)
            monkeypatch.setenv("TAV_S3_BUCKET", "tav")
            cluster_command("restore", saved)
            second.up(["s3", "mlflow"])
            assert VersionStore(settings).resolve("ball@production") == version
            elsewhere = {"mlflow_url"}
            assert JobStore(settings).get(job.id).model_dump(exclude=elsewhere) == job.model_dump(exclude=elsewhere)
            assert ObjectStore(settings).get_bytes(stored.uri) == clip.read_bytes()
            assert sample("ball@production") == before


def test_what_cannot_be_saved_or_brought_back_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ClusterError, match="set TAV_CLUSTER_MLFLOW_DATABASE"):
        cluster_command("backup", tmp_path)
    monkeypatch.setenv("TAV_CLUSTER_MLFLOW_DATABASE", "sqlite:///mlflow.db")
    with pytest.raises(ClusterError, match="Only a PostgreSQL database"):
        cluster_command("backup", tmp_path)
    with pytest.raises(ClusterError, match="holds no saved registry"):
        cluster_command("restore", tmp_path / "nothing")
