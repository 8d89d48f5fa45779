"""Every error as `application/problem+json` (RFC 9457): a sentence that says what to do, and a code for programs."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException

from services import metrics
from tav.errors import TavError, is_disk_full
from tav.sentences import as_text, faults
from tav_client.schemas import Problem

RETRY_SECONDS = 2
"""The value of `retry-after`."""

ORIGINAL_METHOD = "tav.original_method"
"""In a scope: the method of the request, where middleware has replaced it."""

INTERNAL = "Something went wrong inside the service: try again, and report the x-request-id if it goes on."

_STATUS = {
    "invalid_clip": 422,
    "invalid_config": 422,
    "out_of_memory": 422,
    "base_mismatch": 409,
    "storage_unavailable": 503,
    "no_resources": 503,
    "worker_lost": 503,
    "job_not_found": 404,
    "batch_not_found": 404,
    "model_not_found": 404,
    "version_not_found": 404,
    "video_not_found": 404,
    "video_not_ready": 409,
    "version_in_use": 409,
    "too_many_videos": 429,
    "queue_full": 503,
}
"""Status of the codes of `TavError`s and failures; every other is 500."""

_RENAMED = {
    "alias_not_found": "version_not_found",
    "cursor_not_found": "invalid_request",
    "invalid_reference": "invalid_request",
    "storage_refused": "invalid_request",
}
"""Codes of the registry that have another name in the contract."""

_TITLES = {413: "Content Too Large", 416: "Range Not Satisfiable", 422: "Unprocessable Content"}
"""RFC 9110's phrases where those of this Python may be older."""

_PATH_CODES = {404: "not_found", 405: "method_not_allowed", 413: "clip_too_large", 415: "unsupported_media_type"}
_REPEATABLE = frozenset(
    {"storage_unavailable", "disk_full", "worker_lost", "no_resources", "queue_full", "not_ready", "internal"}
)
"""Codes of 500 and above after which the same request may succeed."""

_SOURCES = {("body",), ("query",), ("path",), ("header",)}
"""First parts of FastAPI's locations, which the problem leaves out."""


class ApiError(Exception):
    """A response of 400 or above."""

    def __init__(
        self, status: int, code: str, detail: str, *, errors: Sequence[Mapping[str, Any]] | None = None, **headers: str
    ) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail, self.errors = status, code, detail, errors
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def invalid(detail: str, *loc: str | int, kind: str = "value_error") -> ApiError:
    """Return 422 `invalid_request` about one field, or about the whole request."""
    errors = [{"loc": list(loc), "msg": detail, "type": kind}] if loc else None
    return ApiError(422, "invalid_request", detail, errors=errors)


def invalid_fields(errors: Sequence[Mapping[str, Any]], model: type[BaseModel] | None = None) -> ApiError:
    """Return 422 `invalid_request` that lists every invalid field.

    Args:
        errors: as of `ValidationError.errors()`.
        model: the model that was validated, if it was one.
    """
    within = [dict(error) | {"loc": error["loc"][error["loc"][:1] in _SOURCES :]} for error in errors]
    invalid_values = faults(within, model)
    listed = [{"loc": list(fault.loc), "msg": fault.text, "type": fault.type} for fault in invalid_values]
    return ApiError(422, "invalid_request", as_text(invalid_values), errors=listed)


def unavailable(code: str, detail: str) -> ApiError:
    """Return 503, after which the client is to retry."""
    return ApiError(503, code, detail)


def of_tav_error(error: TavError) -> ApiError:
    """Return an error of the method, the registry or the samplers as a response."""
    code = _RENAMED.get(error.code, error.code)
    return ApiError(422 if code == "invalid_request" else _STATUS.get(code, 500), code, _sentence(str(error)))


def problem_response(request: Request, error: ApiError) -> Response:
    """Return the problem document, with the headers that its status requires."""
    metrics.PROBLEMS.inc(tags={"status": str(error.status), "code": error.code})
    headers = dict(error.headers)
    if error.status in (429, 503):
        headers = {"retry-after": str(RETRY_SECONDS), "retry-after-ms": str(RETRY_SECONDS * 1000)} | headers
    elif error.status == 409 or (error.status >= 500 and error.code not in _REPEATABLE):
        headers["x-should-retry"] = "false"
    problem = Problem(
        title=_TITLES.get(error.status) or HTTPStatus(error.status).phrase,
        status=error.status,
        detail=error.detail,
        code=error.code,
        errors=None if error.errors is None else [dict(e) for e in error.errors],
        error={"code": error.code, "message": error.detail} if request.url.path.startswith("/v1/videos") else None,
    )
    body = problem.model_dump(mode="json", exclude_none=True)
    return Response(json.dumps(body, ensure_ascii=False), error.status, headers=headers, media_type="application/problem+json")


def _allowed(request: Request) -> str:
    """Return the methods of a path, from the description: FastAPI itself names those of one route only."""
    paths: dict[str, Any] = request.app.openapi()["paths"]
    matches = [path for path in paths if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", path), request.url.path)]
    most_exact = min(matches, key=lambda path: path.count("{"), default=None)
    methods = ["GET"] if most_exact is None else [method.upper() for method in paths[most_exact]]
    return ", ".join(methods + ["HEAD"] * ("GET" in methods))


def install(app: FastAPI) -> None:
    """Register the handlers of all errors but the unexpected ones, which `RequestMiddleware` handles."""

    async def api_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, ApiError)
        return problem_response(request, error)

    async def tav_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, TavError)
        return problem_response(request, of_tav_error(error))

    async def validation_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError | ValidationError)
        return problem_response(request, invalid_fields(error.errors()))

    async def http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        code = _PATH_CODES.get(error.status_code, "invalid_request")
        method = request.scope.get(ORIGINAL_METHOD, request.method)
        detail = {
            404: f"There is no {request.url.path}: see /docs for the calls there are.",
            405: f"{request.url.path} does not know {method}: see /docs for the calls there are.",
        }.get(error.status_code, _sentence(str(error.detail)))
        headers = {name.lower().replace("-", "_"): value for name, value in (error.headers or {}).items()}
        if error.status_code == 405 and not request.url.path.startswith("/mlflow"):
            headers["allow"] = _allowed(request)
        return problem_response(request, ApiError(error.status_code, code, detail, errors=None, **headers))

    async def system_error(request: Request, error: Exception) -> Response:
        if not is_disk_full(error):
            raise error
        detail = "The service has no room for the upload now: try again later, and tell its operator if that goes on."
        return problem_response(request, unavailable("disk_full", detail))

    app.add_exception_handler(ApiError, api_error)
    app.add_exception_handler(OSError, system_error)
    app.add_exception_handler(TavError, tav_error)
    app.add_exception_handler(RequestValidationError, validation_error)
    app.add_exception_handler(HTTPException, http_error)


_WORD = re.compile(r"[a-z]+(?=[ ,])")


def _sentence(text: str) -> str:
    """Return a clause as a sentence. It begins with a capital, unless with a name, a path or an address."""
    text = text.strip()
    if _WORD.match(text):
        text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else f"{text}."
