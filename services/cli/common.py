"""What the server's commands share: an expected error is one sentence on stderr and exit code 1."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tav.errors import TavError

if TYPE_CHECKING:
    from registry.settings import RegistrySettings

DataDir = Annotated[
    Path | None, typer.Option(help="The one-machine stack's data, whose registry is meant; left out, the TAV_* variables say.")
]


class ServerCommand(typer.Typer):
    """One command (or a group of them); the context's `obj` holds the client's `base_url` and `api_key`."""

    def __init__(self, help: str) -> None:
        super().__init__(help=help, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs it; without arguments on this process's words."""
        try:
            return super().__call__(*args, **kwargs)
        except TavError as error:
            sentence = str(error)
        except OSError as error:
            sentence = f"{error.filename}: {error.strerror}." if error.filename else f"{error}."
        typer.echo(f"tav: {sentence}", err=True)
        sys.exit(1)


def registry_settings(data_dir: Path | None) -> RegistrySettings:
    """Of the one-machine stack that keeps its data there; without one, of the `TAV_*` variables."""
    from registry.settings import RegistrySettings

    if data_dir is None:
        return RegistrySettings()
    from services.platform import PlatformConfig, Stack

    return Stack(PlatformConfig(data_dir=data_dir)).settings()
