"""What of a request's texts its base does not read, where the base's tokenizer lies on this machine. Blocks.

Where it does not, the sampler or the tuner says it.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from services.api.http.errors import invalid
from tav.prompts import reader_of, refusal, texts_of
from tav_client.schemas import ModelVersion, TuningJobCreate, VideoCreate


def unread_in_video(wanted: VideoCreate, version: ModelVersion) -> dict[str, str]:
    """The unread ends by field.

    Raises:
        ApiError: 422, the request does not want them cut.
    """
    return _unread(version.base, {"prompt": wanted.prompt, "negative_prompt": wanted.negative_prompt}, wanted.truncate)


def unread_in_job(wanted: TuningJobCreate, base: str) -> dict[str, str]:
    """Likewise."""
    return _unread(base, texts_of(wanted.caption, wanted.validation_prompts), wanted.truncate)


def as_header(unread: Mapping[str, str]) -> dict[str, str]:
    """`x-tav-unread`, where there is something to say: `FIELD=TEXT`, percent-encoded, joined by `&`."""
    return {"x-tav-unread": "&".join(f"{name}={quote(text, safe='')}" for name, text in unread.items())} if unread else {}


def _unread(base: str, texts: Mapping[str, str | None], truncate: str) -> dict[str, str]:
    reader = reader_of(base)
    found = {} if reader is None else reader.unread_of(texts)
    if truncate == "error" and (refused := refusal(found)):
        name, _, place = next(iter(found)).partition(".")
        sentence = str(refused)
        raise invalid(f"{sentence[:1].upper()}{sentence[1:]}.", name, *([int(place)] if place else []))
    return found
