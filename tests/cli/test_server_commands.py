"""How a command of the server package joins `tav`."""

import importlib
import re
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from services.cli import ServerCommand
from tav.errors import InvalidConfig
from tav_client.cli import _app


@pytest.fixture
def tav(monkeypatch: pytest.MonkeyPatch):
    """`tav` whose `platform` is a command made here."""
    command = ServerCommand("Try.")

    @command.command()
    def try_(ctx: typer.Context, what: str, loud: bool = False) -> None:
        """Try."""
        if what == "refused":
            raise InvalidConfig("this will not do: try that")
        if what == "unreadable":
            open("/nowhere/at/all").close()
        typer.echo(f"{what} {loud} {ctx.find_root().obj['base_url']}")

    module = ModuleType("services.cli.made_here")
    module.app = command
    monkeypatch.setitem(sys.modules, "services.cli.platform", module)
    return lambda *words: CliRunner().invoke(_app.app, words)


def test_a_server_command_gets_the_words_that_follow_and_the_options_before(tav) -> None:
    result = tav("--url", "http://there:1", "platform", "this", "--loud")
    assert (result.exit_code, result.stdout) == (0, "this True http://there:1\n")
    assert "--loud" in tav("platform", "--help").stdout


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["refused"], 1, "tav: this will not do: try that\n"),
        (["unreadable"], 1, "tav: /nowhere/at/all: No such file or directory.\n"),
        ([], 2, "Missing argument 'what'"),
    ],
)
def test_an_expected_error_of_a_server_command_is_a_sentence(tav, words: list[str], code: int, sentence: str) -> None:
    result = tav("platform", *words)
    assert (result.exit_code, result.stdout) == (code, "")
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr


def commands() -> list[list[str]]:
    """Every command of `tav`, those of the server package too."""

    def below(words: list[str], command: Any) -> Iterator[list[str]]:
        yield words
        for name, each in getattr(command, "commands", {}).items():
            yield from below([*words, name], each)

    root = typer.main.get_command(_app.app)
    names = list(below([], root))
    for name, (module, _) in _app.SERVER_COMMANDS.items():
        names += list(below([name], typer.main.get_command(importlib.import_module(module).app)))[1:]
    return names


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_has_help_in_one_style(words: list[str]) -> None:
    shown = CliRunner().invoke(_app.app, [*words, "--help"], prog_name="tav")
    assert shown.exit_code == 0 and shown.stdout.lstrip().startswith("Usage: tav" if not words else f"Usage: tav {words[0]}")
    assert set("╭│╰─━┃").isdisjoint(shown.stdout) and "\x1b" not in shown.stdout
    help_of_it = shown.stdout.split("\n\n")[1].strip()
    assert help_of_it and not help_of_it.startswith(("Options:", "Commands:", "Arguments:")), "it says what it does"
    options = re.findall(r"^  (--?\w[\w-]*.*)$", shown.stdout, re.M)
    assert "--install-completion" not in " ".join(options)


@pytest.mark.parametrize("name", ["platform", "keys", "cluster", "eval", "jobs", "models", "videos"])
def test_a_group_without_a_command_shows_its_help(name: str) -> None:
    result = CliRunner().invoke(_app.app, [name], prog_name="tav")
    assert "Usage: tav" in result.output and "Commands:" in result.output
