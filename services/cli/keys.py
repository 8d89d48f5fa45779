"""`tav keys create|list|revoke`: the keys of the gateway."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Annotated

import typer

from services.api.keys import KeyFile, KeyRecord, make_key
from services.cli.common import ServerCommand
from tav.errors import InvalidConfig
from tav_client.cli.common import one_line

app = ServerCommand("Make, list and revoke API keys. A running gateway follows within seconds.")

Where = Annotated[
    str | None, typer.Option("--file", help="A path, or s3://bucket/key (TAV_S3_* say where); left out, TAV_API_KEYS_FILE.")
]


@app.command()
def create(
    tenant: Annotated[str, typer.Option(help="Whose requests it makes.")] = "default",
    days: Annotated[float | None, typer.Option(help="Valid for so long; left out, until it is revoked.")] = None,
    operator: Annotated[bool, typer.Option("--operator", help="It opens MLflow, and acts for any tenant.")] = False,
    note: Annotated[str, typer.Option(help="Yours to choose, e.g. where it is used.")] = "",
    file: Where = None,
) -> None:
    """Print a new key, once: only its digest is kept. Earlier ones stay valid."""
    keys = _file(file)
    key, record = make_key(tenant, days, operator, note)
    keys.write({**keys.read(), record.id: record})
    typer.echo(key)


@app.command("list")
def list_(file: Where = None) -> None:
    """Print one key a line: id, tenant, when made, until when, note."""
    for record in _file(file).read().values():
        until = "expires " + _day(record.expires_at) if record.expires_at else "does not expire"
        rights = "operator " if record.operator else ""
        created = f"made {_day(record.created_at)}"
        typer.echo(one_line(f"{record.id}  {record.tenant}  {created}  {until}  {rights}{record.note}"))


@app.command()
def revoke(
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="As `list` shows them, or whole keys.")], file: Where = None
) -> None:
    """Let keys open nothing any more."""
    keys = _file(file)
    records, revoked = keys.read(), {_id(text) for text in ids}
    if missing := revoked - records.keys():
        raise InvalidConfig(f"There is no key {', '.join(sorted(missing))} in {keys.place}: `tav keys list` shows them all.")
    left: dict[str, KeyRecord] = {key_id: record for key_id, record in records.items() if key_id not in revoked}
    keys.write(left)
    typer.echo(f"{len(revoked)} revoked, {len(left)} left.")


def _file(place: str | None) -> KeyFile:
    from registry.settings import RegistrySettings

    place = place or os.environ.get("TAV_API_KEYS_FILE")
    if not place:
        raise InvalidConfig("Say where the keys are kept: --file, or TAV_API_KEYS_FILE.")
    return KeyFile(place, RegistrySettings())


def _id(text: str) -> str:
    return text.split("_")[1] if text.startswith("tav_") else text


def _day(when: float) -> str:
    return datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%d")
