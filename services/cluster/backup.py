"""Backup and restore of the registry: MLflow's database by PostgreSQL's own programs, the bucket by rclone.

The database is saved first. A version's objects are in the bucket before its entry is in the database, so a backup taken while
the service runs is complete, except for what is deleted between the two steps. The bucket keeps its name, because every address
in the database holds it. The folder has `mlflow.dump` and `BUCKET/`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from sqlalchemy.engine import make_url

from registry.objects import ObjectStore
from services.cluster.settings import ClusterError
from services.platform.daemons import s3_environment, tool
from services.settings import Settings

_DUMP = "mlflow.dump"


def save(database: str, settings: Settings, folder: Path) -> None:
    """Write the registry into `folder`, over an earlier backup if there is one.

    Raises:
        ClusterError: a program is missing or failed.
    """
    objects = folder / settings.s3_bucket
    objects.mkdir(parents=True, exist_ok=True)
    part = folder / f"{_DUMP}.part"
    _run([_client("pg_dump"), "--format=custom", f"--file={part}"], _login(database))
    part.replace(folder / _DUMP)
    _rclone(_bucket(settings), str(objects), settings)


def restore(database: str, settings: Settings, folder: Path) -> None:
    """Load what `save` wrote into an empty database and an empty bucket, before MLflow starts on them.

    Raises:
        ClusterError: the bucket has another name than the saved one, the bucket or the database is not empty, a program is
            missing or failed.
    """
    if not (folder / _DUMP).is_file():
        raise ClusterError(f"{folder} holds no saved registry: it has no {_DUMP}.")
    if not (folder / settings.s3_bucket).is_dir():
        saved = ", ".join(sorted(path.name for path in folder.iterdir() if path.is_dir()))
        raise ClusterError(
            f"{folder} is of the bucket {saved}, whose name is in every address of the registry: restore into a bucket of that "
            f"name, not {settings.s3_bucket} (TAV_S3_BUCKET)."
        )
    objects = ObjectStore(settings)
    objects.ensure_bucket()
    if next(iter(objects.list("")), None) is not None:
        raise ClusterError(f"The bucket {settings.s3_bucket} is not empty: empty it first, so that nothing is mixed.")
    login = _login(database)
    into = [_client("pg_restore"), "--exit-on-error", "--single-transaction", "--no-owner", f"--dbname={login['PGDATABASE']}"]
    _run([*into, str(folder / _DUMP)], login)
    _rclone(str(folder / settings.s3_bucket), _bucket(settings), settings)


def _login(database: str) -> dict[str, str]:
    """Return a database's address as libpq's variables: every user of the machine can read arguments, and so the password."""
    url = make_url(database)
    if not url.drivername.startswith("postgresql"):
        raise ClusterError("Only a PostgreSQL database is saved here: TAV_CLUSTER_MLFLOW_DATABASE=postgresql://….")
    variables = {
        "PGHOST": url.host,
        "PGPORT": url.port,
        "PGUSER": url.username,
        "PGPASSWORD": url.password,
        "PGDATABASE": url.database,
    }
    return {name: str(value) for name, value in variables.items() if value is not None}


def _client(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise ClusterError(f"{name} is not installed (on Debian: apt-get install postgresql-client).")
    return path


def _bucket(settings: Settings) -> str:
    """Return the bucket as rclone addresses it. It takes keys, or the machine's own rights, from the environment."""
    endpoint = settings.s3_endpoint_url
    provider = "AWS" if endpoint is None else "GCS" if "storage.googleapis.com" in endpoint else "Other"
    remote = f'provider={provider},endpoint="{endpoint}"' if endpoint else f"provider={provider}"
    return f":s3,{remote},region={settings.s3_region},env_auth=true:{settings.s3_bucket}"


def _rclone(source: str, target: str, settings: Settings) -> None:
    _run([tool("rclone"), "sync", "--config", "", "--checksum", source, target], s3_environment(settings))


def _run(command: list[str], environment: dict[str, str]) -> None:
    result = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    if result.returncode:
        raise ClusterError(f"{Path(command[0]).name} failed: {(result.stderr or result.stdout).strip()[-1000:]}")
