"""What the server's commands share: expected errors as one sentence, and which service they are about."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tav.errors import TavError
from tav_client.cli.common import harmless, sentence

if TYPE_CHECKING:
    from registry.settings import RegistrySettings

DataDir = Annotated[
    Path | None,
    typer.Option(help="The one-machine stack's data; left out, TAV_DATA_DIR, then .data where the command is called."),
]


class ServerCommand(typer.Typer):
    """A command or a group. An expected error is one sentence on stderr and exit code 1.

    The context's `obj` has the client's `base_url` and `api_key`.
    """

    def __init__(self, help: str) -> None:
        super().__init__(
            help=help, no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command; without arguments, on this process's own."""
        try:
            return super().__call__(*args, **kwargs)
        except TavError as error:
            message = str(error)
        except OSError as error:
            message = sentence(error)
        typer.echo(f"tav: {harmless(message)}", err=True)
        sys.exit(1)


def variables(data_dir: Path | None) -> Mapping[str, str]:
    """Return the variables that say where the service is.

    They are those of the stack in `data_dir` if that is given, otherwise this process's own if they name an MLflow server,
    otherwise those of the stack in `TAV_DATA_DIR`, or in `.data` of the working directory.

    Raises:
        PlatformError: no stack runs there.
    """
    if data_dir is None and os.environ.get("TAV_MLFLOW_TRACKING_URI"):
        return os.environ
    from services.platform import PlatformSettings, Stack

    return Stack(PlatformSettings() if data_dir is None else PlatformSettings(data_dir=data_dir)).joined()


def registry_settings(data_dir: Path | None) -> RegistrySettings:
    """Return where MLflow and S3 are, by the rule of `variables`."""
    from registry.settings import RegistrySettings

    environment = variables(data_dir)
    values = {name: environment.get(f"TAV_{name.upper()}") for name in RegistrySettings.model_fields}
    present: dict[str, Any] = {name: value for name, value in values.items() if value is not None}
    return RegistrySettings(**present)
