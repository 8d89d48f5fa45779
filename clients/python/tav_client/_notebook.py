"""How results look in a notebook: plain HTML, styled by the notebook itself."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from html import escape

from pydantic import BaseModel


class Html(str):
    """Text that is HTML already."""


def fields(title: str, values: Mapping[str, object]) -> str:
    """A table of names and values, leaving out what is empty; addresses become links."""
    rows = "".join(
        f"<tr><th style='text-align:left'>{escape(name)}</th><td style='text-align:left'>{_cell(value)}</td></tr>"
        for name, value in values.items()
        if value not in (None, "", [], {}, ())
    )
    return f"<table><caption style='text-align:left'><b>{escape(title)}</b></caption>{rows}</table>"


def record(value: BaseModel) -> str:
    """Any record of the service."""
    shown = value.model_dump(mode="json")
    return fields(str(shown.pop("object", type(value).__name__)).replace("_", " "), shown)


def bar(fraction: float, text: str) -> Html:
    """How far something is."""
    return Html(f"<progress max='1' value='{min(max(fraction, 0.0), 1.0):.3f}'></progress> {escape(text)}")


def player(data: bytes, content_type: str) -> str:
    """The content itself, embedded."""
    source = f"data:{escape(content_type, quote=True)};base64,{base64.b64encode(data).decode()}"
    if content_type.startswith("video/"):
        return f"<video controls loop muted autoplay playsinline src='{source}'></video>"
    return f"<img src='{source}' alt='video'>"


def _cell(value: object) -> str:
    if isinstance(value, Html):
        return value
    if isinstance(value, Mapping):
        return "<br>".join(f"{escape(str(k))}: {_cell(v)}" for k, v in value.items() if v is not None)
    if isinstance(value, list | tuple):
        return ", ".join(_cell(entry) for entry in value)
    text = escape(str(value))
    return f"<a href='{text}' target='_blank'>{text}</a>" if text.startswith(("http://", "https://")) else text
