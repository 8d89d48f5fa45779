"""Ends of a request's texts that its base does not read, where the base's tokenizer is on this machine. Blocks.

Where it is not, the sampler or the tuner checks.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from services.api.http.errors import invalid
from tav.prompts import reader_of, refusal, texts_of
from tav_client.schemas import ModelVersion, TuningJobCreate, VideoCreate


def unread_in_video(request: VideoCreate, version: ModelVersion) -> dict[str, str]:
    """Return the unread ends of a video's texts, by field.

    Raises:
        ApiError: 422, there are some, and the request has `truncate: "error"`.
    """
    return _unread(version.base, {"prompt": request.prompt, "negative_prompt": request.negative_prompt}, request.truncate)


def unread_in_job(request: TuningJobCreate, base: str) -> dict[str, str]:
    """Return the unread ends of a job's texts, by field.

    Raises:
        ApiError: as of `unread_in_video`.
    """
    return _unread(base, texts_of(request.caption, request.validation_prompts), request.truncate)


def unread_header(unread: Mapping[str, str]) -> dict[str, str]:
    """Return the header `x-tav-unread`, if anything is unread: `FIELD=TEXT`, percent-encoded, joined by `&`."""
    return {"x-tav-unread": "&".join(f"{name}={quote(text, safe='')}" for name, text in unread.items())} if unread else {}


def _unread(base: str, texts: Mapping[str, str | None], truncate: str) -> dict[str, str]:
    reader = reader_of(base)
    unread = {} if reader is None else reader.unread_of(texts)
    if truncate == "error" and (error := refusal(unread)):
        name, _, index = next(iter(unread)).partition(".")
        detail = str(error)
        raise invalid(f"{detail[:1].upper()}{detail[1:]}.", name, *([int(index)] if index else []))
    return unread
