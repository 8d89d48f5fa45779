"""What the server's commands share: an expected error is one sentence on stderr and exit code 1."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tav.errors import TavError
from tav_client._files import sentence as of_system
from tav_client._texts import harmless

if TYPE_CHECKING:
    from registry.settings import RegistrySettings

DataDir = Annotated[
    Path | None,
    typer.Option(help="The one-machine stack's data; left out, TAV_DATA_DIR, then .data where the command is called."),
]


class ServerCommand(typer.Typer):
    """One command (or a group of them); the context's `obj` holds the client's `base_url` and `api_key`."""

    def __init__(self, help: str) -> None:
        super().__init__(
            help=help, no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs it; without arguments on this process's words."""
        try:
            return super().__call__(*args, **kwargs)
        except TavError as error:
            sentence = str(error)
        except OSError as error:
            sentence = of_system(error)
        typer.echo(f"tav: {harmless(sentence)}", err=True)
        sys.exit(1)


def variables(data_dir: Path | None) -> Mapping[str, str]:
    """The variables that say where the service is, by the one rule of all commands.

    `--data-dir`, where it is given; else the `TAV_*` variables, where they name an MLflow server; else the one-machine stack
    of `TAV_DATA_DIR`, or of `.data` where the command is called.

    Raises:
        PlatformError: No stack runs there.
    """
    if data_dir is None and os.environ.get("TAV_MLFLOW_TRACKING_URI"):
        return os.environ
    from services.platform import PlatformSettings, Stack

    return Stack(PlatformSettings() if data_dir is None else PlatformSettings(data_dir=data_dir)).joined()


def registry_settings(data_dir: Path | None) -> RegistrySettings:
    """Where MLflow and S3 are, by the same rule."""
    from registry.settings import RegistrySettings

    found = variables(data_dir)
    named = {name: found.get(f"TAV_{name.upper()}") for name in RegistrySettings.model_fields}
    given: dict[str, Any] = {name: value for name, value in named.items() if value is not None}
    return RegistrySettings(**given)
