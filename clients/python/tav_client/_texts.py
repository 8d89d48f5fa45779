"""Other people's text: files as their editors save them, and words that must not take a terminal over."""

from __future__ import annotations

import codecs
import re
import unicodedata
from datetime import datetime
from pathlib import Path

from tav_client._errors import InvalidRequest

_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark is its beginning
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
    codecs.BOM_UTF8: "utf-8-sig",
}
_LINE_ENDS = re.compile(r"\s*[^\S ]\s*")
"""White space that is not blanks alone."""
_DIRECTIONS = frozenset("\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""They let what follows be shown in another order than it is in."""


def read_text(path: Path) -> str:
    """Read a text file in UTF-8, or in UTF-16 or UTF-32 with a byte order mark.

    Other encodings are not guessed: a wrong guess would be words that nobody wrote.

    Raises:
        InvalidRequest: it is in another encoding; the sentence names the file.
    """
    data = path.read_bytes()
    encoding = next((name for mark, name in _MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        before = data[: error.start].count(b"\n") + 1
        raise InvalidRequest(f"{path} is not text in UTF-8 (line {before} has other bytes): save it as UTF-8.") from None
    if "\0" in text:
        raise InvalidRequest(f"{path} is not text in UTF-8 (it has zero bytes): save it as UTF-8.")
    return text


def one_line(value: object) -> str:
    """Write a value as one line of a table: its lines joined by blanks, what a terminal would obey as an escape (`\\x1b`)."""
    return "".join(map(_shown, _LINE_ENDS.sub(" ", str(value)).strip()))


def harmless(text: str) -> str:
    """Escape text of several lines as `one_line` does; its lines and tabs stay."""
    return "".join(char if char in "\n\t" else _shown(char) for char in text.replace("\r\n", "\n"))


def when(unix: float | None) -> str | None:
    """Write a time as people do, in this machine's zone."""
    return None if unix is None else datetime.fromtimestamp(unix).strftime("%Y-%m-%d %H:%M:%S")


def _shown(char: str) -> str:
    if unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") or char in _DIRECTIONS:
        return char.encode("unicode_escape").decode()
    return char
