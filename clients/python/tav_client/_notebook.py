"""How results look in a notebook: plain HTML, styled by the notebook itself, and shown by IPython where it runs one."""

from __future__ import annotations

import base64
import sys
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from pydantic import BaseModel


class Html(str):
    """Text that is HTML already."""


def fields(title: str, values: Mapping[str, object]) -> str:
    """Draw a table of names and values, leaving out what is empty; addresses become links."""
    rows = "".join(
        f"<tr><th style='text-align:left'>{escape(name)}</th><td style='text-align:left'>{_cell(value)}</td></tr>"
        for name, value in values.items()
        if value not in (None, "", [], {}, ())
    )
    return f"<table><caption style='text-align:left'><b>{escape(title)}</b></caption>{rows}</table>"


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], below: str = "") -> str:
    """Draw rows under a header, with a line of text below."""
    head = "".join(f"<th style='text-align:left'>{escape(name)}</th>" for name in columns)
    body = "".join(
        "<tr>" + "".join(f"<td style='text-align:left'>{_cell(value)}</td>" for value in row) + "</tr>" for row in rows
    )
    note = f"<div>{escape(below)}</div>" if below else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{note}"


def record(value: BaseModel) -> str:
    """Draw any record of the service."""
    shown = value.model_dump(mode="json")
    return fields(str(shown.pop("object", type(value).__name__)).replace("_", " "), shown)


def bar(fraction: float, text: str) -> Html:
    """Draw how far something is."""
    return Html(f"<progress max='1' value='{min(max(fraction, 0.0), 1.0):.3f}'></progress> {escape(text)}")


def player(data: bytes, content_type: str) -> str:
    """Embed the content itself."""
    source = f"data:{escape(content_type, quote=True)};base64,{base64.b64encode(data).decode()}"
    if content_type.startswith("video/"):
        return f"<video controls loop muted autoplay playsinline src='{source}'></video>"
    return f"<img src='{source}' alt='video'>"


def in_notebook() -> bool:
    """Say whether a notebook's kernel runs this, which shows HTML; IPython on a terminal does not."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


def moving() -> Callable[[str], None]:
    """Make a place in the notebook's output; each call puts other HTML there."""
    display: Any = sys.modules["IPython"].display
    place: Any = None

    def show(html: str) -> None:
        nonlocal place
        if place is None:
            place = display.display(display.HTML(html), display_id=True)
        else:
            place.update(display.HTML(html))

    return show


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, Html):
        return value
    if isinstance(value, Mapping):
        return "<br>".join(f"{escape(str(k))}: {_cell(v)}" for k, v in value.items() if v is not None)
    if isinstance(value, list | tuple):
        return ", ".join(_cell(entry) for entry in value)
    text = escape(str(value))
    return f"<a href='{text}' target='_blank'>{text}</a>" if text.startswith(("http://", "https://")) else text
