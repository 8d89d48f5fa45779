"""What the commands share, those of the server package too: the client, options, errors as sentences, output."""

from __future__ import annotations

import errno
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Literal, NoReturn

import typer
from pydantic import BaseModel, TypeAdapter
from rich.cells import cell_len
from typer.core import TyperGroup

from tav_client import TavClient
from tav_client._calls import request_of as request_of
from tav_client._errors import TavClientError
from tav_client._files import sentence as sentence
from tav_client._texts import harmless as harmless
from tav_client._texts import one_line as one_line
from tav_client._texts import when as when
from tav_client.schemas import MemorySetting

INTERRUPTED = 130
"""Exit code of a command that Ctrl-C ended, as shells count it."""

JsonOption = Annotated[bool, typer.Option("--json", help="Print what the service answered, as JSON.")]


class Commands(TyperGroup):
    """A group of commands. An expected error is one sentence on stderr, with exit code 1."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except TavClientError as error:
            fail(str(error))
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise
            fail(sentence(error))


def group(help: str) -> typer.Typer:
    """Return a group of commands."""
    return typer.Typer(
        cls=Commands,
        help=help,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )


def fail(sentence: str) -> NoReturn:
    """Print the sentence to stderr and end the command with exit code 1."""
    typer.echo(f"tav: {harmless(sentence)}", err=True)
    raise typer.Exit(1)


@contextmanager
def interruptible(sentence: str) -> Iterator[None]:
    """End the command at Ctrl-C, with a sentence that says what goes on in the service and how to end that."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(f"\ntav: {sentence}", err=True)
        raise typer.Exit(INTERRUPTED) from None


def again(ctx: typer.Context, *words: str) -> str:
    """Return a further command about the same service, to be copied."""
    url = (ctx.find_root().obj or {}).get("base_url")
    return f"`{shlex.join(['tav', *(['--url', url] if url else []), *words])}`"


def client_of(ctx: typer.Context) -> TavClient:
    """Return the client that the options before the command describe; it is closed when the command ends."""
    root = ctx.find_root()
    client = TavClient(**(root.obj or {}))
    root.call_on_close(client.close)
    return client


def pairs(texts: Iterable[str]) -> dict[str, str]:
    """Parse `KEY=VALUE` options."""
    parts = [text.partition("=") for text in texts]
    for key, equals, _ in parts:
        if not key or not equals:
            raise typer.BadParameter(f"{key!r} is not KEY=VALUE.")
    return {key: value for key, _, value in parts}


def size_of(text: str | None) -> tuple[int, int] | None:
    """Parse `512x512` as width and height."""
    if text is None:
        return None
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise typer.BadParameter(f"{text!r} is not WIDTHxHEIGHT, e.g. 512x512.")
    return int(width), int(height)


def memory_of(text: str | None) -> Literal["auto"] | MemorySetting | None:
    """Parse `auto`, or a setting's fields such as `zero_stage=3,offload_params,precision=bf16`.

    Raises:
        InvalidRequest: there is no such field or value.
    """
    if text is None:
        return None
    if text == "auto":
        return "auto"
    words = [word.strip().partition("=") for word in text.split(",")]
    fields = {name.replace("-", "_"): value if equals else True for name, equals, value in words}
    return request_of(MemorySetting, {name: int(v) if v in ("1", "2", "3") else v for name, v in fields.items()})


def print_json(value: BaseModel | Sequence[BaseModel]) -> None:
    """Print one JSON document on one line."""
    typer.echo(TypeAdapter(Any).dump_json(value).decode())


def print_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table with columns as wide as their widest entry, one line per row, whatever the entries hold."""
    texts = [[one_line(cell) for cell in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(header, *texts, strict=True)]
    for row in [list(header), *texts]:
        cells = (cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True))
        typer.echo("  ".join(cells).rstrip())


def unread_line(unread: Mapping[str, str]) -> str:
    """Return on one line what the base does not read of a job's or video's texts, which are too long for it."""
    return "; ".join(f"{name} … {end}" for name, end in unread.items())


def note_unread(unread: Mapping[str, str]) -> None:
    """Print to stderr what the base does not read, if there is any."""
    if unread:
        typer.echo(f"The base does not read all of it. Not read: {one_line(unread_line(unread))}", err=True)


def print_fields(fields: Mapping[str, object]) -> None:
    """Print one `name  value` per line, without those that are empty."""
    shown = {name: one_line(value) for name, value in fields.items() if value not in (None, "", [], {})}
    width = max(map(len, shown), default=0)
    for name, value in shown.items():
        typer.echo(f"{name.ljust(width)}  {value}")
