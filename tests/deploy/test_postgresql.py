"""MLflow on PostgreSQL, as clusters have it, behaves as it does on SQLite: the registry's tests, once more."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr

from registry.jobs import JobStore
from registry.objects import ObjectStore
from registry.versions import VersionInfo, VersionStore
from services.cluster.backup import restore, save
from services.cluster.errors import ClusterError
from services.platform import PlatformConfig, Stack
from tav_client.schemas import ClipInfo, TuningJobCreate
from tests.deploy import servers
from tests.deploy.machines import CHECKOUT

pytestmark = pytest.mark.slow


def test_the_registrys_tests_pass_on_postgresql() -> None:
    servers.require_servers()
    with servers.postgresql("127.0.0.1") as database:
        command = [sys.executable, "-m", "pytest", "-q", "-x", "tests/registry", "tests/platform", "-k", "registry or gc"]
        environment = os.environ | {"TAV_MLFLOW_DATABASE": database}
        done = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, timeout=400, check=False)
        said = done.stdout[-3000:] + done.stderr[-2000:]
        assert done.returncode == 0, said
        # It was PostgreSQL that they wrote to: what they left is there.
        login = os.environ | {"PGPASSWORD": servers.PASSWORD}
        host = database.rpartition("@")[2].partition("/")[0].split(":")
        query = ["psql", "-h", host[0], "-p", host[1], "-U", "tav", "-d", "tav", "-Atc", "select count(*) from runs"]
        counted = subprocess.run(query, env=login, capture_output=True, text=True, check=True)
        assert int(counted.stdout) > 10, said


@contextmanager
def stack_on(database: str, folder: Path) -> Iterator[Stack]:
    """S3 and MLflow on a database, in a new data directory."""
    made = Stack(PlatformConfig(data_dir=folder, mlflow_database=SecretStr(database)).with_free_ports())
    try:
        made.up(["s3"])
        yield made
    finally:
        made.down()


def test_a_registry_that_was_lost_is_brought_back_whole(tmp_path: Path) -> None:
    servers.require_servers()
    saved, clip, result = tmp_path / "saved", tmp_path / "clip.mp4", tmp_path / "result"
    clip.write_bytes(b"not really a video")
    result.mkdir()
    for name in ("delta.safetensors", "latents.safetensors", "config.json", "preview.mp4"):
        (result / name).write_bytes(name.encode() * 1000)
    with servers.postgresql("127.0.0.1") as database:
        with stack_on(database, tmp_path / "first") as first:
            first.up(["s3", "mlflow"])
            stored = ObjectStore(first.settings()).put_clip(clip)
            of = ClipInfo(uri=stored.uri, sha256=stored.sha256, width=64, height=64, num_frames=8, fps=8)
            job = JobStore(first.settings()).create(TuningJobCreate(caption="a ball"), of, base="offline", model="ball")
            info = VersionInfo(base="offline", base_fingerprint="f" * 64, caption="a ball", num_frames=8, size=(64, 64))
            made = VersionStore(first.settings()).register(job, result, info)
            save(database, first.settings(), saved)
            with pytest.raises(ClusterError, match="is not empty"):
                restore(database, first.settings(), saved)
        shutil.rmtree(tmp_path / "first")
    with servers.postgresql("127.0.0.1") as database, stack_on(database, tmp_path / "second") as second:
        restore(database, second.settings(), saved)
        second.up(["s3", "mlflow"])
        assert VersionStore(second.settings()).resolve("ball/1") == made
        for name, file in made.files.items():
            ObjectStore(second.settings()).get_bytes(file.uri)
            if (result / name).exists():
                assert ObjectStore(second.settings()).get_bytes(file.uri) == (result / name).read_bytes()
        assert JobStore(second.settings()).get(job.id).caption == "a ball"
        with pytest.raises(ClusterError, match="holds no saved registry"):
            restore(database, second.settings(), tmp_path / "nothing")
