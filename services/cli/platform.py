"""`tav platform up|status|env|down`: the one-machine stack from a shell."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from services.cli.common import DataDir, ServerCommand
from services.platform.errors import PlatformError
from services.platform.processes import tail
from services.platform.settings import PlatformSettings
from services.platform.stack import PARTS, Stack
from tav_client.cli.common import print_table

app = ServerCommand("Run a whole service on this machine: S3, MLflow, Ray and the services.")

Port = Annotated[int | None, typer.Option(min=0, max=65535, help="0 takes any free port.")]
AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]


@app.command()
def up(
    data_dir: DataDir = None,
    host: Annotated[str | None, typer.Option(help="Where the gateway listens.")] = None,
    port: Port = None,
    mlflow_port: Port = None,
    s3_port: Port = None,
    ray_port: Port = None,
    port_offset: Annotated[int, typer.Option(help="Move every port by this much.")] = 0,
    free_ports: Annotated[bool, typer.Option("--free-ports", help="Any free port for every part.")] = False,
    base: Annotated[str | None, typer.Option(help="Base to tune on and sample from: a hub id, a folder, or 'offline'.")] = None,
    part: Annotated[list[str] | None, typer.Option(help=f"Only this part; one of {', '.join(PARTS)}. May be repeated.")] = None,
) -> None:
    """Start what is not running, and print where everything is."""
    if unknown := set(part or []) - set(PARTS):
        raise _no_part(*unknown)
    settings = _settings(
        data_dir=data_dir,
        host=host,
        port=port,
        mlflow_port=mlflow_port,
        s3_port=s3_port,
        ray_port=ray_port,
        base=base,
    )
    if free_ports:
        settings = settings.with_free_ports()
    elif port_offset:
        settings = settings.with_offset(port_offset)
    stack = Stack(settings)
    stack.up(part or PARTS, say=typer.echo)
    running = {row.name for row in stack.status() if row.state == "running"}
    if "services" in running:
        typer.echo(f"API     {stack.client_url}/v1\nDocs    {stack.client_url}/docs")
    if "mlflow" in running:
        typer.echo(f"MLflow  {stack.runs_url}")
    typer.echo(f"Data    {stack.root}")


@app.command()
def status(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Tell which parts run, and where."""
    rows = Stack(_settings(data_dir=data_dir)).status()
    if as_json:
        typer.echo(json.dumps([asdict(row) for row in rows]))
    else:
        print_table(("PART", "STATE", "PID", "ADDRESS"), [(r.name, r.state, r.pid or "", r.address or "") for r in rows])


@app.command(context_settings={"allow_interspersed_args": False})
def env(
    data_dir: DataDir = None,
    command: Annotated[
        list[str] | None, typer.Argument(metavar="[COMMAND...]", help="Run with these variables, which are not printed then.")
    ] = None,
) -> None:
    """Print the variables that lead a program to the running stack, its keys among them; or run COMMAND with them.

    For a shell: eval "$(tav platform env)"
    """
    variables = Stack(_settings(data_dir=data_dir)).joined()
    if not command:
        for name, value in variables.items():
            typer.echo(f"export {name}={shlex.quote(value)}")
        return
    own = Path(sys.executable).parent  # where pip puts `mlflow`; the environment may not be activated
    path = os.pathsep.join(filter(None, [str(own), os.environ.get("PATH")]))
    program = shutil.which(command[0], path=path)
    if program is None:
        raise PlatformError(f"There is no program {command[0]!r} to run with these variables.")
    os.execve(program, command, {**os.environ, **variables, "PATH": path})


@app.command()
def down(data_dir: DataDir = None) -> None:
    """Stop everything and keep the data."""
    stack = Stack(_settings(data_dir=data_dir))
    stack.down(say=typer.echo)
    typer.echo(f"Nothing is running. The data is in {stack.root}.")


@app.command()
def gc(data_dir: DataDir = None) -> None:
    """Remove for good what was deleted: MLflow keeps the rows of deleted runs until then."""
    output = Stack(_settings(data_dir=data_dir)).gc()
    typer.echo(f"{output.count('permanently deleted')} removed for good.")


@app.command()
def log(
    part: Annotated[str, typer.Argument(help=f"One of {', '.join(PARTS)}.")],
    data_dir: DataDir = None,
    lines: Annotated[int, typer.Option(min=1, help="How many, from the end.")] = 50,
) -> None:
    """Print the end of a part's log."""
    if part not in PARTS:
        raise _no_part(part)
    typer.echo(tail(Stack(_settings(data_dir=data_dir)).log(part), lines=lines))


def _settings(**options: Any) -> PlatformSettings:
    return PlatformSettings(**{name: value for name, value in options.items() if value is not None})


def _no_part(*names: str) -> PlatformError:
    return PlatformError(f"There is no part {', '.join(sorted(names))}; the parts are {', '.join(PARTS)}.")
