"""`tav cluster`: the files for a cluster, and what its machines run."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from services.cli.common import ServerCommand

app = ServerCommand("A cluster of many machines.")


class Cloud(StrEnum):
    """Where a cluster's machines come from."""

    aws = "aws"
    gcp = "gcp"
    kubernetes = "kubernetes"


@app.command()
def render(
    cloud: Cloud,
    settings: Annotated[Path, typer.Option(help="What the operator filled in.")] = Path("deploy/settings.env"),
    out: Annotated[Path | None, typer.Option(help="Replaced; left out, .deploy/CLOUD.")] = None,
    wheels: Annotated[bool, typer.Option(help="Build the packages for machines without a container image.")] = True,
) -> None:
    """Write the cluster file for `ray up` and the folder that every machine gets, or what `kubectl apply` takes."""
    from services.cluster import kubernetes
    from services.cluster.render import render as render_cluster

    out = out or Path(".deploy") / cloud.value
    if cloud is Cloud.kubernetes:
        typer.echo(kubernetes.render(settings, out))
    else:
        typer.echo(render_cluster(cloud.value, settings, out, wheels))


@app.command()
def head() -> None:
    """Begin MLflow, the scheduler and the gateway, anew if they run: on the head, after `ray start`."""
    from services.cluster.head import start
    from services.cluster.settings import HeadSettings
    from services.settings import Settings

    start(HeadSettings(), Settings(), typer.echo)


@app.command()
def cache() -> None:
    """Fetch the bases' weights: on every machine, before `ray start`."""
    from services.cluster.cache import fetch_bases
    from services.settings import Settings

    fetch_bases(Settings(), typer.echo)


Folder = Annotated[Path, typer.Argument(help="Holds the saved registry.", file_okay=False)]


@app.command()
def backup(folder: Folder) -> None:
    """Save MLflow's database and the bucket into FOLDER; the service may run meanwhile."""
    from services.cluster.backup import save
    from services.settings import Settings

    save(_database(), Settings(), folder)


@app.command()
def restore(folder: Folder) -> None:
    """Bring a saved registry back into an empty database and an empty bucket, before the service starts."""
    from services.cluster.backup import restore as restore_backup
    from services.settings import Settings

    restore_backup(_database(), Settings(), folder)


@app.command()
def mlflow(address: Annotated[str, typer.Option(help="The name by which others reach it.")]) -> None:
    """Run an MLflow server on the settings' database, in place of this process: in a container of its own."""
    import os

    from services.cluster.settings import HeadSettings
    from services.platform import daemons
    from services.settings import Settings

    server = daemons.mlflow(_database(), address, HeadSettings().mlflow_port, Settings())
    os.execve(server.command[0], server.command, {**os.environ, **server.env})


def _database() -> str:
    from services.cluster.settings import ClusterError, HeadSettings

    database = HeadSettings().mlflow_database
    if database is None:
        raise ClusterError("There is no database: set TAV_CLUSTER_MLFLOW_DATABASE.")
    return database.get_secret_value()
