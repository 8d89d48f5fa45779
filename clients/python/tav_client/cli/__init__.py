"""The command line `tav`."""

from __future__ import annotations


def main() -> None:
    """Entry point of `tav`."""
    from tav_client.cli._app import app

    app(prog_name="tav")
