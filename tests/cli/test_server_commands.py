"""How a command of the server package joins `tav`."""

import sys
from types import ModuleType

import pytest
import typer
from typer.testing import CliRunner

from services.cli import ServerCommand
from tav.errors import InvalidConfig
from tav_client.cli import _app


@pytest.fixture
def tav(monkeypatch: pytest.MonkeyPatch):
    """`tav` whose `platform` is a command made here."""
    made = ServerCommand("Try.")

    @made.command()
    def try_(ctx: typer.Context, what: str, loud: bool = False) -> None:
        """Try."""
        if what == "refused":
            raise InvalidConfig("this will not do: try that")
        if what == "unreadable":
            open("/nowhere/at/all").close()
        typer.echo(f"{what} {loud} {ctx.find_root().obj['base_url']}")

    module = ModuleType("services.cli.made_here")
    module.app = made
    monkeypatch.setitem(sys.modules, "services.platform.cli", module)
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
