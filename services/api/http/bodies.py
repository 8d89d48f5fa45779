"""Request bodies: JSON, form fields and uploads, limited in size and time.

Routes read bodies with these functions only, never through a parameter: FastAPI would read the whole body before the request
is authenticated.
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
_MULTIPART_OVERHEAD = 64 << 10  # boundaries and headers
_MIN_BYTES_PER_SECOND = 64 << 10
"""Rate of a body that takes longer than the time that every body has."""

T = TypeVar("T", bound=BaseModel)


def media_type(request: Request) -> str:
    """Return the body's media type without parameters, in lower case."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_json(request: Request, model: type[T]) -> T:
    """Read a JSON body as a `model`.

    Raises:
        ApiError: 415 another media type, 422 not a `model`, or too large.
    """
    if media_type(request) != "application/json":
        raise _unsupported("send JSON with 'Content-Type: application/json'")
    return parse(await Request(request.scope, limited(request, _JSON_LIMIT)).body(), model)


def parse(data: bytes | str, model: type[T]) -> T:
    """Parse JSON strictly as a `model`: a string is no number, a boolean neither.

    Raises:
        ApiError: 422, lists every invalid field.
    """
    return _checked(model, lambda: model.model_validate_json(data, strict=True))


def validated(values: dict[str, str], model: type[T]) -> T:
    """Validate text fields as a `model`.

    Raises:
        ApiError: 422, lists every invalid field.
    """
    return _checked(model, lambda: model.model_validate(values))


def _checked(model: type[T], validate: Callable[[], T]) -> T:
    try:
        return validate()
    except ValidationError as error:
        raise invalid_fields(error.errors(include_url=False), model) from error


async def read_fields(request: Request, model: type[T]) -> T:
    """Read a body as a `model`: JSON, or multipart/form-data with a text part for each field, as OpenAI's clients send it.

    Raises:
        ApiError: 415 another media type, 422 not a `model`, a file among the parts, or too large.
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
    """Read the multipart parts `job` (JSON, a `model`) and `clip` (a file, which is written to `folder`).

    Returns:
        The model, and the file if there is one.

    Raises:
        ApiError: 413 the clip is larger than `max_bytes`, 422 parts are missing, unknown or invalid.
    """
    too_large = ApiError(413, "clip_too_large", f"The clip may have {max_bytes} bytes at most: shorten or compress it.")
    receive = limited(request, max_bytes + _JSON_LIMIT + _MULTIPART_OVERHEAD, too_large)
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
    """Return the request's `receive`, limited to `limit` bytes of body; a larger content-length is refused at once.

    Raises:
        ApiError: `too_large`, by default 422.
    """
    refusal = too_large or invalid(f"The body may have {limit} bytes at most: send less.")
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > limit:
        raise refusal
    received = 0

    async def receive() -> Message:
        nonlocal received
        message = await request.receive()
        received += len(message.get("body", b""))
        if received > limit:
            raise refusal
        return message

    return receive


class BodyReceiver:
    """An ASGI `receive` that limits the time of the body, and knows whether the body is complete.

    Args:
        receive: the server's.
        seconds: how long a body may take, and a second more for every 64 KiB.
    """

    def __init__(self, receive: Receive, seconds: float) -> None:
        self._receive, self._seconds = receive, seconds
        self._deadline: float | None = None
        self.complete = False

    async def __call__(self) -> Message:
        """Return the next message; after the body, without a limit.

        Raises:
            ApiError: 408, the body is too slow.
        """
        if self.complete:
            return await self._receive()
        now = asyncio.get_running_loop().time()
        self._deadline = now + self._seconds if self._deadline is None else self._deadline
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError as error:
            detail = f"The body did not come within {self._seconds:g} seconds, and one more for every 64 KiB: send it faster."
            raise ApiError(408, "request_timeout", detail) from error
        self._deadline += len(message.get("body", b"")) / _MIN_BYTES_PER_SECOND
        self.complete = message["type"] != "http.request" or not message.get("more_body", False)
        return message


def _unsupported(what: str) -> ApiError:
    return ApiError(415, "unsupported_media_type", f"This call does not take such a body: {what}.")


def unsupported_job_body() -> ApiError:
    """Return 415 for a tuning job's body that is neither JSON nor multipart."""
    return _unsupported("send multipart/form-data with the parts 'job' and 'clip', or JSON with 'clip_uri'")
