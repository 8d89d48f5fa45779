"""The root of `tav`: options about the service, and the commands of the server package."""

from __future__ import annotations

import importlib
from typing import Annotated

import typer

from tav_client._version import __version__
from tav_client.cli import _bases, _jobs, _models, _videos
from tav_client.cli.common import fail, group

SERVER_COMMANDS = {
    "eval": ("services.cli.eval", "Score videos, and compare methods on a suite of clips and edits."),
    "platform": ("services.cli.platform", "Run a whole service on this machine: up, status, env, down."),
    "cluster": ("services.cli.cluster", "Run the service on many machines: the files for them, and what they start."),
    "keys": ("services.cli.keys", "Make, list and revoke the API keys of a service."),
    "import": ("services.cli.import_", "Make a public Tune-A-Video checkpoint a delta, and a version of the registry."),
    "export": ("services.cli.export", "Write a tuned clip for the public implementation, or as a diffusers pipeline."),
    "estimate": ("services.cli.estimate", "Peak memory and time of a job, before it is paid for."),
    "caption": ("services.cli.caption", "Say what a clip shows, in words to tune it with."),
}
"""Commands of the server package: a module, imported when the command is called, whose `app` gets the arguments, and a help."""

_HELP = "One-shot video tuning: submit a clip, then sample edited prompts with its motion."

app = group(_HELP)
app.command()(_bases.bases)
app.add_typer(_jobs.app, name="jobs")
app.add_typer(_models.app, name="models")
app.add_typer(_videos.app, name="videos")


def _print_version(value: bool) -> None:
    if value:
        typer.echo(__version__)
        raise typer.Exit()


@app.callback(help=_HELP)
def root(
    ctx: typer.Context,
    url: Annotated[str | None, typer.Option(help="Where the service is; left out, $TAV_URL, then this machine.")] = None,
    api_key: Annotated[str | None, typer.Option(help="Left out, $TAV_API_KEY.")] = None,
    tenant: Annotated[
        str | None, typer.Option(help="With an operator's key, whose things it is about; '*' for all tenants'.")
    ] = None,
    version: Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print it.")] = False,
) -> None:
    """Store the options before a command for the client of every command."""
    ctx.obj = {"base_url": url, "api_key": api_key, "tenant": tenant}


def _attach(name: str, module: str, help: str) -> None:
    @app.command(
        name,
        help=help,
        context_settings={
            "allow_extra_args": True,
            "allow_interspersed_args": False,  # a `--` among the arguments is theirs
            "ignore_unknown_options": True,
            "help_option_names": [],
        },
        add_help_option=False,
    )
    def command(ctx: typer.Context) -> None:
        try:
            commands = importlib.import_module(module)
        except ModuleNotFoundError as error:
            fail(f"`tav {name}` needs the server package ({error.name} is missing): pip install 'tav[service]'.")
        commands.app(args=ctx.args, prog_name=f"tav {name}", obj=ctx.obj)


for _name, (_module, _help) in SERVER_COMMANDS.items():
    _attach(_name, _module, _help)
