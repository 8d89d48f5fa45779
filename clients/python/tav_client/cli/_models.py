"""`tav models`"""

from __future__ import annotations

from itertools import islice
from typing import Annotated

import typer

from tav_client.cli._common import JsonOption, client_of, group, print_fields, print_json, print_table, when

app = group("Look into the registry.")


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
