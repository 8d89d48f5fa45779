"""Commands of `tav` that need the method or the registry: a module per command, of the command's name.

common    what they share: expected errors as one sentence, and which service they are about
platform  `tav platform`: the one-machine stack
cluster   `tav cluster`: a cluster's files, its head, backup and restore
keys      `tav keys`: API keys
estimate  `tav estimate`: a job's memory and time, before it is submitted
caption   `tav caption`: what a clip shows
import_   `tav import` (a reserved word): a public Tune-A-Video checkpoint as a version
export    `tav export`: a version in another implementation's format
eval      `tav eval`: score videos, and compare methods

A module has an `app = ServerCommand(…)` and a line in `tav_client.cli._app.SERVER_COMMANDS`.
"""

from services.cli.common import ServerCommand

__all__ = ["ServerCommand"]
