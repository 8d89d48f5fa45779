"""Reading what is sent, never more of it than is allowed, and for no longer.

Handlers read their bodies with these functions alone, never through a parameter: FastAPI would read the whole of such a body
before it asks who sent it.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive

from services.api.http.errors import ApiError, invalid, invalid_fields

_JSON_LIMIT = 1 << 20
_FRAMING = 64 << 10  # a multipart body's boundaries and headers
_SLOWEST = 64 << 10
"""Bytes a second of a body that takes longer than the time that every body has."""

T = TypeVar("T", bound=BaseModel)


def media_type(request: Request) -> str:
    """The body's type without parameters, in lower case."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_json(request: Request, model: type[T]) -> T:
    """The JSON body as a `model`.

    Raises:
        ApiError: 415 another type, 422 not a `model`, or too large.
    """
    if media_type(request) != "application/json":
        raise _unsupported("send JSON with 'Content-Type: application/json'")
    return parse(await Request(request.scope, limited(request, _JSON_LIMIT)).body(), model)


def parse(data: bytes | str, model: type[T]) -> T:
    """JSON as a `model`: no number in a text, no truth for a number.

    Raises:
        ApiError: 422, with every field at fault.
    """
    return _checked(model, lambda: model.model_validate_json(data, strict=True))


def validated(values: dict[str, str], model: type[T]) -> T:
    """Fields as text as a `model`.

    Raises:
        ApiError: 422, with every field at fault.
    """
    return _checked(model, lambda: model.model_validate(values))


def _checked(model: type[T], validate: Callable[[], T]) -> T:
    try:
        return validate()
    except ValidationError as error:
        raise invalid_fields(error.errors(include_url=False), model) from error


async def read_fields(request: Request, model: type[T]) -> T:
    """The body as a `model`: JSON, or one text part of multipart/form-data for each field, as OpenAI's clients send them.

    Raises:
        ApiError: 415 another type, 422 not a `model`, a file among the parts, or too large.
    """
    if media_type(request) != "multipart/form-data":
        return await read_json(request, model)
    form = await _form(request, limited(request, _JSON_LIMIT), max_files=1)
    try:
        values: dict[str, str] = {}
        for name, value in form.multi_items():
            if isinstance(value, UploadFile):
                detail = f"{name} is a file, which this call does not take: tune the clip with POST /v1/tuning-jobs first."
                raise invalid(detail, name)
            if name in values:
                raise invalid(f"{name} is there twice: send it once.", name)
            values[name] = value
    finally:
        await form.close()
    return validated({name: value for name, value in values.items() if value}, model)


async def read_upload(request: Request, model: type[T], folder: Path, max_bytes: int) -> tuple[T, Path | None]:
    """The multipart parts `job` (JSON, a `model`) and `clip` (a file, written to `folder`).

    Raises:
        ApiError: 413 the clip is larger than `max_bytes`, 422 parts are missing, unknown or not what they should be.
    """
    too_large = ApiError(413, "clip_too_large", f"The clip may have {max_bytes} bytes at most: shorten or compress it.")
    receive = limited(request, max_bytes + _JSON_LIMIT + _FRAMING, too_large)
    form = await _form(request, receive, max_files=2)
    try:
        names = [name for name, _ in form.multi_items()]
        for name in names:
            if name not in ("clip", "job") or names.count(name) > 1:
                raise invalid("Send one part 'job' with JSON and one part 'clip' with the file, and no others.", name)
        job = form.get("job")
        if job is None:
            raise invalid("The part 'job' is missing: send the job's JSON in it, at least a caption.", "job", kind="missing")
        if isinstance(job, UploadFile):
            job = (await job.read(_JSON_LIMIT)).decode("utf-8", "replace")
        created = parse(job, model)
        clip = form.get("clip")
        if clip is None:
            return created, None
        if not isinstance(clip, UploadFile):
            raise invalid("The part 'clip' is not a file: send it with a file name, as in curl -F clip=@ball.mp4.", "clip")
        if (clip.size or 0) > max_bytes:
            raise too_large
        path = folder / "clip"
        await asyncio.to_thread(_copy, clip.file, path)
        return created, path
    finally:
        await form.close()


async def _form(request: Request, receive: Receive, max_files: int) -> FormData:
    try:
        return await Request(request.scope, receive).form(max_files=max_files, max_fields=64, max_part_size=_JSON_LIMIT)
    except HTTPException as error:
        raise invalid(f"The body cannot be read as multipart/form-data ({error.detail}).") from error


def _copy(source: BinaryIO, path: Path) -> None:
    with path.open("wb") as target:
        shutil.copyfileobj(source, target, 1 << 20)


def limited(request: Request, limit: int, too_large: ApiError | None = None) -> Receive:
    """The request's messages, up to `limit` bytes of body; a body that announces more is not read at all.

    Raises:
        ApiError: `too_large`, or else 422.
    """
    refusal = too_large or invalid(f"The body may have {limit} bytes at most: send less.")
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > limit:
        raise refusal
    seen = 0

    async def receive() -> Message:
        nonlocal seen
        message = await request.receive()
        seen += len(message.get("body", b""))
        if seen > limit:
            raise refusal
        return message

    return receive


class BodyReceiver:
    """A request's messages as they come, and whether all of its body has.

    Args:
        receive: Where they come from.
        seconds: How long a body may take, and a second more for every 64 KiB.
    """

    def __init__(self, receive: Receive, seconds: float) -> None:
        self._receive, self._seconds = receive, seconds
        self._until: float | None = None
        self.complete = False

    async def __call__(self) -> Message:
        """The next message; after the body there is no hurry.

        Raises:
            ApiError: 408, the body does not come.
        """
        if self.complete:
            return await self._receive()
        now = asyncio.get_running_loop().time()
        self._until = now + self._seconds if self._until is None else self._until
        try:
            async with asyncio.timeout_at(self._until):
                message = await self._receive()
        except TimeoutError as error:
            detail = f"The body did not come within {self._seconds:g} seconds, and one more for every 64 KiB: send it faster."
            raise ApiError(408, "request_timeout", detail) from error
        self._until += len(message.get("body", b"")) / _SLOWEST
        self.complete = message["type"] != "http.request" or not message.get("more_body", False)
        return message


def _unsupported(what: str) -> ApiError:
    return ApiError(415, "unsupported_media_type", f"This call does not take such a body: {what}.")


def unsupported_job_body() -> ApiError:
    """415 of a tuning job that is neither JSON nor multipart."""
    return _unsupported("send multipart/form-data with the parts 'job' and 'clip', or JSON with 'clip_uri'")
