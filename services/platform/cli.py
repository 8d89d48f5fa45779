"""`tav platform up|status|down`: the one-machine stack from a shell."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from services.platform.config import PlatformConfig
from services.platform.errors import PlatformError
from services.platform.processes import tail
from services.platform.stack import PARTS, Stack
from tav.errors import InvalidConfig

app = typer.Typer(help="The one-machine stack: S3, MLflow, Ray and the services.", no_args_is_help=True)
console = Console(highlight=False)

DataDir = Annotated[Path | None, typer.Option(help="Holds everything the stack keeps. Default: TAV_DATA_DIR, then ./.data.")]
Port = Annotated[int | None, typer.Option(min=0, max=65535, help="0 takes any free port.")]


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
    given = {
        "data_dir": data_dir,
        "host": host,
        "port": port,
        "mlflow_port": mlflow_port,
        "s3_port": s3_port,
        "ray_port": ray_port,
        "base": base,
    }
    if unknown := set(part or []) - set(PARTS):
        raise _stop(f"There is no part {', '.join(sorted(unknown))}; the parts are {', '.join(PARTS)}.")
    config = _config(given)
    config = config.with_free_ports() if free_ports else config.with_offset(port_offset) if port_offset else config
    stack = Stack(config)
    try:
        stack.up(part or PARTS, say=console.print)
    except PlatformError as e:
        raise _stop(str(e)) from e
    running = {row.name for row in stack.status() if row.state == "running"}
    if "services" in running:
        console.print(f"API     {stack.client_url}/v1\nDocs    {stack.client_url}/docs")
    if "mlflow" in running:
        console.print(f"MLflow  {stack.mlflow_url}")
    console.print(f"Data    {stack.root}")


@app.command()
def status(data_dir: DataDir = None, as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False) -> None:
    """Tell which parts run, and where."""
    rows = Stack(_config({"data_dir": data_dir})).status()
    if as_json:
        console.print_json(data=[asdict(row) for row in rows])
        return
    table = Table("part", "state", "pid", "address")
    for row in rows:
        table.add_row(row.name, row.state, str(row.pid or ""), row.address or "")
    console.print(table)


@app.command()
def down(data_dir: DataDir = None) -> None:
    """Stop everything and keep the data."""
    stack = Stack(_config({"data_dir": data_dir}))
    try:
        stack.down(say=console.print)
    except PlatformError as e:
        raise _stop(str(e)) from e
    console.print(f"Nothing is running. The data is in {stack.root}.")


@app.command()
def gc(data_dir: DataDir = None) -> None:
    """Remove for good what was deleted: MLflow keeps the rows of deleted runs until then."""
    try:
        said = Stack(_config({"data_dir": data_dir})).gc()
    except PlatformError as e:
        raise _stop(str(e)) from e
    console.print(f"{said.count('permanently deleted')} removed for good.")


@app.command()
def log(
    part: Annotated[str, typer.Argument(help=f"One of {', '.join(PARTS)}.")],
    data_dir: DataDir = None,
    lines: Annotated[int, typer.Option(min=1, help="How many, from the end.")] = 50,
) -> None:
    """Print the end of a part's log."""
    if part not in PARTS:
        raise _stop(f"There is no part {part}; the parts are {', '.join(PARTS)}.")
    console.print(tail(Stack(_config({"data_dir": data_dir})).log(part), lines=lines), markup=False)


def _config(given: dict[str, Any]) -> PlatformConfig:
    try:
        return PlatformConfig(**{name: value for name, value in given.items() if value is not None})
    except InvalidConfig as e:
        raise _stop(str(e)) from e


def _stop(message: str) -> typer.Exit:
    Console(stderr=True, highlight=False).print(message, markup=False, style="red")
    return typer.Exit(1)
