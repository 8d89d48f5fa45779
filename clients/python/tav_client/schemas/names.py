"""Names, references and labels: their alphabets, and what is suggested where one does not fit."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import StringConstraints, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

from tav_client._sentences import shown


def model_slug(text: str) -> str:
    """Derive a model's name from a text, `Man Skiing` → `man-skiing`; empty if no character of it may be in a name."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:64].strip("-")


def explained(rule: str, suggest: Callable[[str], str] = lambda _: "") -> WrapValidator:
    """Explain a pattern that a value does not match.

    Args:
        rule: what the pattern requires, for people.
        suggest: returns a value that would match, or an empty text.
    """

    def check(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
        try:
            return validate(value)
        except ValidationError as error:
            if error.errors()[0]["type"] != "string_pattern_mismatch":
                raise
            suggestion = suggest(str(value))
            raise ValueError(
                f"may not be {shown(value)}: {rule}" + (f"; {suggestion} would do" if suggestion else "")
            ) from None

    return WrapValidator(check)


def _label_slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("._-")[:64].strip("._-")


ModelName = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?$"),
    explained("a model's name has 1 to 64 of a-z 0-9 . _ -, a letter or digit at both ends", model_slug),
]
"""Registry name: 1–64 of `a-z 0-9 . _ -`, starting and ending with a letter or digit."""

_TENANT = r"(?:[a-z0-9][a-z0-9._-]{0,63}~)?"

AnyModelName = Annotated[
    str,
    StringConstraints(pattern=rf"^{_TENANT}[a-z0-9][a-z0-9._-]{{0,63}}$"),
    explained("a model's name has 1 to 64 of a-z 0-9 . _ -, a letter or digit at both ends", model_slug),
]
"""A model of one's own, or as `TENANT~NAME` one that another tenant shares."""

ModelRef = Annotated[
    str,
    StringConstraints(pattern=rf"^{_TENANT}[a-z0-9][a-z0-9._-]{{0,63}}(?:@[A-Za-z0-9_-]{{1,64}}|/[1-9][0-9]{{0,8}})?$"),
    explained("write name, name@alias or name/version", lambda text: "" if re.search("[@/~]", text) else model_slug(text)),
]
"""`name` (its latest version), `name@alias` or `name/version`; of a model that another tenant shares, `TENANT~NAME…`."""

Label = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?$"),
    explained("1 to 64 letters, digits and . _ -, a letter or digit at both ends", _label_slug),
]
"""A batch's name, a GPU type, a key of `metadata`: 1–64 letters, digits, `.`, `_`, `-`, the ends letters or digits."""

Prompt = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1000)]

Truncate = Literal["end", "error"]
"""What happens to the part of a text beyond the window of the base's text encoder."""
