"""Commands of `tav` that need the method or the registry; the client's CLI hands them its words where they are installed.

A module here has an `app = ServerCommand(…)` and a line in `tav_client.cli._app.SERVER_COMMANDS`.
"""

from services.cli.common import ServerCommand

__all__ = ["ServerCommand"]
