"""Command-line options made from the fields of a request: their names, types and descriptions are the schema's."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

Command = Callable[..., None]


def options_of(schema: type[BaseModel], **options: Any) -> Callable[[Command], Command]:
    """Give a command an option for every field of a request that it has no parameter of its own for.

    The command takes the values as `**fields`, without those that the command line leaves out.

    Args:
        schema: of the request.
        **options: by field, a `typer.Option` where flags, metavar or help are not to be the field's own.
    """

    def decorate(command: Command) -> Command:
        hints = get_type_hints(command, include_extras=True)
        own = {
            name: parameter.replace(annotation=hints[name])
            for name, parameter in inspect.signature(command).parameters.items()
            if parameter.kind is not inspect.Parameter.VAR_KEYWORD
        }
        derived = {
            name: _parameter(name, field, options.get(name) or typer.Option())
            for name, field in schema.model_fields.items()
            if name not in own
        }

        @wraps(command)
        def call(*args: Any, **values: Any) -> None:
            command(*args, **{name: value for name, value in values.items() if name in own or value is not None})

        parameters = sorted([*derived.values(), *own.values()], key=lambda parameter: parameter.kind)
        call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return call

    return decorate


def _parameter(name: str, field: FieldInfo, option: Any) -> inspect.Parameter:
    option.help = option.help or field.description
    kind = _kind(field.annotation)
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if field.is_required() else None,
        annotation=Annotated[kind if field.is_required() else kind | None, option],
    )


def _kind(annotation: Any) -> Any:
    """Return the type that a command line parses. What it cannot parse is a string, which the schema or the command does."""
    while get_origin(annotation) in (Annotated, Union, types.UnionType):
        kinds = [kind for kind in get_args(annotation) if kind is not type(None)]
        if get_origin(annotation) is not Annotated and len(kinds) > 1:
            return str
        annotation = kinds[0]
    return annotation if annotation in (bool, int, float) or get_origin(annotation) is Literal else str
