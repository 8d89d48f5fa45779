"""`tav models`: list models and versions, name, share and delete them."""

from __future__ import annotations

from itertools import islice
from typing import Annotated

import typer

from tav_client.cli.common import JsonOption, client_of, group, print_fields, print_json, print_table, when

app = group("Look into the registry, name versions, remove them.")

ModelName = Annotated[str, typer.Argument(metavar="NAME", help="A model's name.")]


@app.command("list")
def list_(
    ctx: typer.Context,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, newest first.")] = 20,
    json: JsonOption = False,
) -> None:
    """List models."""
    models = list(islice(client_of(ctx).models.list(page_size=min(limit, 100)), limit))
    if json:
        print_json(models)
        return
    rows = [
        (
            model.name,
            model.latest_version,
            ", ".join(f"@{alias}={version}" for alias, version in sorted(model.aliases.items())),
            when(model.updated_at),
        )
        for model in models
    ]
    print_table(("NAME", "LATEST", "ALIASES", "UPDATED"), rows)


@app.command()
def show(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="name (its latest version), name@alias or name/version.")],
    json: JsonOption = False,
) -> None:
    """Show a version of a model."""
    version = client_of(ctx).models.version(model)
    if json:
        print_json(version)
        return
    width, height = version.size
    print_fields(
        {
            "model": f"{version.name}/{version.version}",
            "aliases": ", ".join(f"@{alias}" for alias in version.aliases),
            "caption": version.caption,
            "base": f"{version.base} ({version.base_fingerprint[:12]})",
            "frames": f"{version.num_frames} of {width}x{height}",
            "created": when(version.created_at),
            "job": version.job_id,
        }
        | {name: f"{file.size} bytes  {file.uri}" for name, file in version.files.items()}
    )


@app.command()
def versions(
    ctx: typer.Context,
    name: ModelName,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, newest first.")] = 20,
    json: JsonOption = False,
) -> None:
    """List a model's versions, newest first."""
    entries = list(islice(client_of(ctx).models.versions(name, page_size=min(limit, 100)), limit))
    if json:
        print_json(entries)
        return
    rows = [
        (
            f"{version.name}/{version.version}",
            ", ".join(f"@{alias}" for alias in version.aliases),
            f"{version.num_frames} of {version.size[0]}x{version.size[1]}",
            when(version.created_at),
            version.job_id,
            version.caption,
        )
        for version in entries
    ]
    print_table(("VERSION", "ALIASES", "FRAMES", "CREATED", "JOB", "CAPTION"), rows)


@app.command()
def alias(
    ctx: typer.Context,
    name: ModelName,
    alias: Annotated[str, typer.Argument(metavar="ALIAS", help="Letters, digits, - and _.")],
    version: Annotated[int | None, typer.Argument(metavar="[VERSION]", help="The number of what it shall mean.")] = None,
    *,
    delete: Annotated[bool, typer.Option("--delete", help="Forget the alias; the version stays.")] = False,
    json: JsonOption = False,
) -> None:
    """Let NAME@ALIAS mean a version, from the next request on."""
    if (version is None) != delete:
        raise typer.BadParameter("give either the VERSION that the alias shall mean, or --delete.")
    models = client_of(ctx).models
    model = models.delete_alias(name, alias) if version is None else models.set_alias(name, alias, version)
    if json:
        print_json(model)
    elif version is None:
        typer.echo(f"{name}@{alias} deleted")
    else:
        typer.echo(f"{name}@{alias} is {name}/{version}")


@app.command()
def share(
    ctx: typer.Context,
    name: ModelName,
    *,
    stop: Annotated[bool, typer.Option("--stop", help="Share it no longer.")] = False,
    json: JsonOption = False,
) -> None:
    """Let other tenants look at a model and sample it, as TENANT~NAME; it stays yours to change."""
    model = client_of(ctx).models.share(name, not stop)
    if json:
        print_json(model)
    elif model.shared:
        typer.echo(f"{name} is shared: others name it {model.tenant}~{name}")
    else:
        typer.echo(f"{name} is shared no longer")


@app.command()
def delete(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(metavar="NAME[/VERSION]", help="A model with all its versions, or one of them.")],
) -> None:
    """Remove a model or a version with its files; its tuning jobs and videos stay."""
    name, slash, number = model.partition("/")
    if (slash and not number.isdecimal()) or "@" in name:
        raise typer.BadParameter(f"{model!r} is not NAME or NAME/VERSION.")
    client_of(ctx).models.delete(name, int(number) if slash else None)
    typer.echo(f"{model} deleted")
