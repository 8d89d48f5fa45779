"""What is wrong with values, in sentences that say the way: the only words of ours for what pydantic finds.

faults(error, TuneConfig)      one `Fault` for each value at fault
sentence(error, TuneConfig)    the first three of them as text
"""

from __future__ import annotations

import difflib
import json
import re
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

Loc = tuple[str | int, ...]

_SHOWN = 3
"""Faults that a text names; `faults` has them all."""

_ELSEWHERE = {
    "size": "width height w h resolution dimensions image_size",
    "num_frames": "frames n_frames frame_count video_length n_sample_frames length",
    "num_inference_steps": "steps num_steps sampling_steps inference_steps n",
    "steps": "num_steps max_steps max_train_steps train_steps iterations num_inference_steps",
    "learning_rate": "lr",
    "prompt": "text caption edited_prompt input",
    "caption": "text prompt source_prompt description",
    "negative_prompt": "negative",
    "guidance_scale": "cfg cfg_scale guidance scale",
    "scheduler": "sampler solver",
    "seconds": "duration",
    "fps": "speed frame_rate framerate frames_per_second",
    "model": "name model_name model_id",
    "clip_uri": "clip_url clip uri url video video_url video_path",
    "validation_prompts": "validation_prompt prompts sample_prompts",
    "base": "base_model pretrained_model pretrained_model_path",
    "frame_start": "start sample_start_idx",
    "frame_stride": "stride sample_frame_rate",
    "format": "output_format container",
}
"""What others call our fields."""

_WAYS = {
    ("seed", "greater_than_equal"): "leave it out for the usual noise, or choose a number of your own",
    ("size", "multiple_of"): "take the nearest multiple",
}
"""What to do about a field, where the rule alone does not say it."""

_WHOLE = "a whole number"
_NUMBER = "a number"
_TEXT = "a text"
_LIST = 'a list, as in ["one", "two"]'
_OBJECT = 'an object, as in {"name": value}'
_KINDS = {
    "int": _WHOLE,
    "float": _NUMBER,
    "decimal": _NUMBER,
    "finite": "a finite number",
    "string": _TEXT,
    "bytes": _TEXT,
    "bool": "true or false",
    "list": _LIST,
    "tuple": "a list, as in [1, 2]",
    "set": _LIST,
    "frozen_set": _LIST,
    "iterable": _LIST,
    "dict": _OBJECT,
    "model": _OBJECT,
    "mapping": _OBJECT,
    "dataclass": _OBJECT,
    "date": "a date, as in 2026-01-31",
    "datetime": "a time, as in 2026-01-31T12:00:00Z",
    "time": "a time of day, as in 12:00:00",
    "url": "an address, as in https://example.org",
    "uuid": "a UUID",
    "path": "a path",
}
"""What a value of a kind is; the kinds are the beginnings of pydantic's types of errors."""


@dataclass(frozen=True)
class Fault:
    """One value at fault.

    Attributes:
        loc: Where it is, as names and indices.
        type: Pydantic's name of the rule: stable, for programs.
        text: One or two sentences that name it and say what it must be.
    """

    loc: Loc
    type: str
    text: str


def sentence(
    error: ValidationError,
    model: type[BaseModel] | None = None,
    name: Callable[[Loc], str] | None = None,
    show: bool = True,
) -> str:
    """Write the first faults as text, with the number of those it leaves out; arguments as of `faults`."""
    return as_text(faults(error.errors(include_url=False), model, name, show))


def as_text(faults: Sequence[Fault]) -> str:
    """Write faults as one text."""
    more = f" ({len(faults) - _SHOWN} more.)" if len(faults) > _SHOWN else ""
    return " ".join(fault.text for fault in faults[:_SHOWN]) + more


def faults(
    errors: Iterable[Mapping[str, Any]],
    model: type[BaseModel] | None = None,
    name: Callable[[Loc], str] | None = None,
    show: bool = True,
) -> list[Fault]:
    """Describe pydantic's errors in sentences for people.

    Args:
        errors: as of `ValidationError.errors()`, with their `ctx`.
        model: what the values were to be; it tells which names there are, and what a field is.
        name: a place's name; left out, `params.size[0]`.
        show: whether values may be shown: those of settings may be secret.
    """
    named, places = name or dotted, [(error, _place(error, model)) for error in errors]
    groups: dict[Loc, list[tuple[Mapping[str, Any], _Place]]] = {}
    for error, place in _of_one_alternative(places):
        groups.setdefault(place.loc, []).append((error, place))
    return [
        Fault(loc, str(group[0][0]["type"]), _text(group, named(loc), show and group[0][0]["type"] != "missing"))
        for loc, group in groups.items()
    ]


def dotted(loc: Loc) -> str:
    """Write a place as people do: `params.size[0]`."""
    plain = re.compile(r"[A-Za-z_][\w.-]*")
    text = "".join(f".{part}" if plain.fullmatch(str(part)) else f"[{shown(part)}]" for part in loc)
    return text.removeprefix(".")


@dataclass(frozen=True)
class _Place:
    loc: Loc
    alternative: Loc | None
    """Which alternative of a union the error is about; None: there are none."""
    within: type[BaseModel] | None
    """Whose field it is."""
    about: str | None
    """The field's description."""


def _place(error: Mapping[str, Any], model: type[BaseModel] | None) -> _Place:
    """Follow an error's place through the model: without a union's own names for its alternatives."""
    loc: list[str | int] = []
    alternative: Loc | None = None
    within, about, kind = model, None, model
    for part in error["loc"]:
        if part == "[key]":
            continue
        members = _members(kind)
        chosen = [member for member in members if _tag(member, part)] if len(members) > 1 else []
        if chosen or (model is None and isinstance(part, str) and "[" in part):
            alternative, kind = (*loc, part), chosen[0] if chosen else None
            continue
        loc.append(part)
        within, kind, said = _child(members, part)
        about = said or about
    return _Place(tuple(loc), alternative, within, about)


def _members(kind: Any) -> list[Any]:
    """List the alternatives of an annotation, but None."""
    if get_origin(kind) is Annotated:
        return _members(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        return [member for one in get_args(kind) if one is not type(None) for member in _members(one)]
    return [] if kind is None else [kind]


def _tag(member: Any, part: str | int) -> bool:
    """Say whether pydantic calls an alternative so."""
    if get_origin(member) is Literal:
        return str(part).startswith("literal[")
    said = str(getattr(member, "__name__", member))
    return said in re.split(r"[\[\], ]+", str(part))  # as it is, and in `function-after[…, Name]`


def _child(members: list[Any], part: str | int) -> tuple[type[BaseModel] | None, Any, str | None]:
    """Return whose field a part is, the field's annotation and description."""
    for member in members:
        if isinstance(member, type) and issubclass(member, BaseModel):
            field = member.model_fields.get(str(part))
            return member, field.annotation if field else None, field.description if field else None
        arguments = get_args(member)
        if get_origin(member) in (list, dict, set) and arguments:
            return None, arguments[-1], None
        if get_origin(member) is tuple and isinstance(part, int):
            return None, arguments[min(part, len(arguments) - 1)], None
    return None, None, None


def _of_one_alternative(
    places: list[tuple[Mapping[str, Any], _Place]],
) -> list[tuple[Mapping[str, Any], _Place]]:
    """Keep, of a union that no alternative of fits, what is wrong within the one that was meant; otherwise all of them."""
    within = {p.alternative[:-1] for _, p in places if p.alternative and len(p.loc) >= len(p.alternative)}
    return [
        (error, place)
        for error, place in places
        if place.alternative is None or place.alternative[:-1] not in within or len(place.loc) >= len(place.alternative)
    ]


def _text(group: list[tuple[Mapping[str, Any], _Place]], name: str, show: bool) -> str:
    error, place = group[0]
    kind, ctx = str(error["type"]), error.get("ctx") or {}
    if (kind in ("json_invalid", "json_type", "model_attributes_type") and not place.loc) or kind == "json_invalid":
        return _no_json(str(ctx.get("error", "")))
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        return _unknown(name, place)
    if kind in ("value_error", "assertion_error"):
        return _own(name, str(ctx.get("error", "")) or str(error["msg"]).partition(", ")[2])
    if kind == "missing" or kind.startswith("missing_"):
        if place.loc and isinstance(place.loc[-1], int):
            return _ended(f"{dotted(place.loc[:-1])} has too few entries", place.about)
        return _ended(f"{name or 'The body'} is missing", place.about)
    rules = list(dict.fromkeys(_rule(str(e["type"]), e.get("ctx") or {}, e) for e, _ in group))
    value = f", not {shown(error.get('input'))}" if show and "input" in error else ""
    subject = name or "The body"
    text = f"{subject} must be {' or '.join(rules)}{value}" if not rules[0].startswith("may ") else f"{subject} {rules[0]}"
    way = next((way for part in place.loc[::-1] if (way := _WAYS.get((str(part), kind)))), None)
    if way is not None:
        return f"{text}: {way}."
    return _ended(text, place.about if kind.endswith(("_type", "_parsing")) else None)


def _rule(kind: str, ctx: Mapping[str, Any], error: Mapping[str, Any]) -> str:
    """Write what follows "must be"; or a whole predicate that begins with "may"."""
    match kind:
        case "greater_than_equal":
            return f"{_plain(ctx['ge'])} or more"
        case "greater_than":
            return f"more than {_plain(ctx['gt'])}"
        case "less_than_equal":
            return f"{_plain(ctx['le'])} or less"
        case "less_than":
            return f"less than {_plain(ctx['lt'])}"
        case "multiple_of":
            return f"a multiple of {_plain(ctx['multiple_of'])}"
        case "literal_error" | "enum":
            return str(ctx["expected"])
        case "too_short":
            return f"of {ctx['min_length']} {_counted(ctx)} or more"
        case "too_long":
            return f"of {ctx['max_length']} {_counted(ctx)} at most"
        case "string_too_short" | "bytes_too_short":
            return "a text that is not empty" if ctx["min_length"] == 1 else f"of {ctx['min_length']} characters or more"
        case "string_too_long" | "bytes_too_long" | "url_too_long":
            return f"of {ctx['max_length']} characters at most"
        case "string_pattern_mismatch":
            return "may not be so" if "input" not in error else f"may not be {shown(error['input'])}"
        case "int_parsing_size":
            return "a smaller number"
        case "none_required":
            return "left out"
        case "string_unicode" | "bytes_invalid_encoding":
            return "a text in UTF-8"
        case "url_scheme":
            return f"an address that begins with {ctx['expected_schemes']}"
    names = (name for name in sorted(_KINDS, key=len, reverse=True) if kind.startswith(name))
    return _KINDS.get(next(names, ""), "another value")


def _counted(ctx: Mapping[str, Any]) -> str:
    return "entries" if ctx["field_type"] in ("List", "Tuple", "Set", "Frozenset", "Dictionary", "Generator") else "characters"


def _plain(number: object) -> str:
    return str(int(number)) if isinstance(number, float) and number.is_integer() else str(number)


def _no_json(said: str) -> str:
    """Name the place where the parser stopped; the rest of `said` is not repeated."""
    match = re.search(r"line (\d+) column (\d+)", said)
    return f"The body is not JSON{f' (line {match[1]}, column {match[2]})' if match else ''}: send an object in UTF-8."


def _unknown(name: str, place: _Place) -> str:
    wrong, fields = str(place.loc[-1]) if place.loc else name, place.within.model_fields if place.within else {}
    for field, others in _ELSEWHERE.items():
        if wrong.lower() in others.split() and field in fields:
            return _ended(f"There is no field {name}: use {field}", fields[field].description)
    for field, info in fields.items():
        for member in _members(info.annotation):
            if isinstance(member, type) and issubclass(member, BaseModel) and wrong in member.model_fields:
                return f"There is no field {name} here: it belongs into {field}, as {field}.{wrong}."
    if near := difflib.get_close_matches(wrong.lower(), fields, n=1):
        return f"There is no field {name}: perhaps {near[0]} is meant; otherwise leave it out."
    return f"There is no field {name}: leave it out."


_PREDICATE = re.compile(r"(?:must|may|needs?|is|are|has|have|cannot|can|names?)\b")


def _own(name: str, text: str) -> str:
    """Write a sentence of ours, or one that goes on from the field's name."""
    if not name:
        return _ended(text)
    return _ended(f"{name} {text}" if _PREDICATE.match(text) else f"{name}: {text}")


def _ended(text: str, more: str | None = None) -> str:
    text = text if text.endswith((".", "!", "?")) else f"{text}."
    return f"{text} {_ended(more)}" if more else text


def shown(value: object, longest: int = 60) -> str:
    """Quote a value without what a terminal would obey, cut where it is long."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = repr(value)
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
