"""A real PostgreSQL, Redis and S3 server, as operators have them outside the cluster, each on a free port of one address."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from glob import glob
from pathlib import Path

import pytest

from registry.settings import RegistrySettings
from services.platform import daemons
from services.platform.data_dir import Credentials
from services.platform.ports import answers, any_free
from tests.eventually import eventually

PASSWORD = "a$ecret"
REDIS_PASSWORD = "red$s"


def require_servers(*programs: str) -> None:
    """Skip, and say why, where they are not installed; left out, all of them."""
    missing = [name for name in programs or ("postgres", "redis-server", "runuser") if _program(name) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}: `tools/system-packages.sh python3 servers` installs PostgreSQL and Redis")


@contextmanager
def running(
    command: list[str], address: str, port: int, log: Path, environment: dict[str, str] | None = None
) -> Iterator[None]:
    """A server, from when it answers until the block ends."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=os.environ | (environment or {}), stdout=output, stderr=output)
        try:
            eventually(lambda: answers(port, address) or process.poll() is not None, f"{command[0]} does not answer")
            assert process.poll() is None, log.read_text(errors="replace")[-2000:]
            yield
        finally:
            process.terminate()
            process.wait(timeout=30)


@contextmanager
def postgresql(address: str) -> Iterator[str]:
    """PostgreSQL with a database `tav`; yields its address. It refuses to run as root, so it runs as its own user."""
    folder = Path(tempfile.mkdtemp(prefix="tav-pg-", dir="/tmp"))
    try:
        shutil.chown(folder, "postgres", "postgres")
        (folder / "password").write_text(PASSWORD)
        (folder / "password").chmod(0o644)
        as_postgres, data, port = ["runuser", "-u", "postgres", "--"], folder / "data", any_free(address)
        initdb = [*as_postgres, _program("initdb") or "", "-D", str(data), "-U", "tav", "-A", "scram-sha-256", "--no-sync"]
        subprocess.run([*initdb, f"--pwfile={folder / 'password'}"], check=True, capture_output=True, cwd=folder)
        with (data / "pg_hba.conf").open("a") as rules:
            rules.write("host all all samenet scram-sha-256\n")
        server = [*as_postgres, _program("postgres") or "", "-D", str(data), "-k", str(folder)]
        server += ["-c", f"listen_addresses={address}", "-c", f"port={port}"]
        with running(server, address, port, folder / "log"):
            at = f"postgresql://tav:{PASSWORD.replace('$', '%24')}@{address}:{port}"
            query(f"{at}/postgres", "create database tav")
            yield f"{at}/tav"
    finally:
        shutil.rmtree(folder)


def query(database: str, sql: str) -> str:
    """What PostgreSQL says to it, bare."""
    return subprocess.run(["psql", database, "-Atqc", sql], check=True, capture_output=True, text=True).stdout


@contextmanager
def redis(address: str) -> Iterator[str]:
    """Redis that writes everything down; yields HOST:PORT. Its password is `REDIS_PASSWORD`."""
    folder, port = Path(tempfile.mkdtemp(prefix="tav-redis-", dir="/tmp")), any_free(address)
    try:
        command = [_program("redis-server") or "", "--bind", address, "--port", str(port), "--requirepass", REDIS_PASSWORD]
        with running([*command, "--appendonly", "yes", "--dir", str(folder)], address, port, folder / "log"):
            yield f"{address}:{port}"
    finally:
        shutil.rmtree(folder)


@contextmanager
def bucket(address: str) -> Iterator[RegistrySettings]:
    """The embedded S3 server on an address that machines reach; yields where it is."""
    folder, port, keys = (
        Path(tempfile.mkdtemp(prefix="tav-s3-", dir="/tmp")),
        any_free(address),
        Credentials("key", "secret key"),
    )
    settings = RegistrySettings(
        s3_endpoint_url=f"http://{address}:{port}",
        s3_access_key_id=keys.access_key_id,
        s3_secret_access_key=keys.secret_access_key,
    )
    try:
        (folder / "s3").mkdir()
        server = daemons.s3(folder, port, keys, settings, address)
        with running(server.command, address, port, folder / "log", server.env):
            yield settings
    finally:
        shutil.rmtree(folder)


def _program(name: str) -> str | None:
    """On the path, or where Debian keeps PostgreSQL's programs."""
    return shutil.which(name) or next(iter(sorted(glob(f"/usr/lib/postgresql/*/bin/{name}"), reverse=True)), None)
