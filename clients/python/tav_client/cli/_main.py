"""The entry point of `tav`."""

from __future__ import annotations


def main() -> None:
    """Run `tav`."""
    from tav_client.cli._app import app  # a program that imports `common` alone does not need the commands

    app(prog_name="tav")
