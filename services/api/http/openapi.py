"""The OpenAPI description, beyond what FastAPI derives from the signatures."""

from __future__ import annotations

import json
import re
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from services.api.http.examples import EXAMPLES
from tav_client import schemas
from tav_client.schemas import Problem, TuningJobCreate

_REF = "#/components/schemas/{model}"
_DESCRIPTIONS = {
    401: "A key is needed",
    403: "The key, the clip's bucket, the page that asked, or the host's name is not allowed this",
    404: "There is no such thing",
    409: "The present state does not allow it",
    408: "The body did not come in time",
    413: "The clip is too large",
    429: "Too many requests of yours came, or too many jobs or videos of yours wait",
    415: "Not a type of body that this call takes",
    416: "There are not so many bytes",
    422: "The request, or the clip, is invalid",
    500: "A defect of the service, or the sampling failed",
    503: "Something that is needed does not answer, or too much is waiting",
}

_KEY = {
    "type": "http",
    "scheme": "bearer",
    "description": "An API key, as the operator makes them with `tav keys create`. Needed only where the service has keys.",
}
_FASTAPI_ERRORS = ("HTTPValidationError", "ValidationError")
"""FastAPI's schemas, which no response has."""


def _header(about: str, kind: str = "string", **more: Any) -> dict[str, Any]:
    return {"description": about, "schema": {"type": kind}, **more}


RESPONSE_HEADERS = {
    "x-request-id": _header("The request's id; the service's log has it too.", required=True),
    "Location": _header("The job's own path.", required=True),
    "retry-after": _header("Seconds after which to ask again.", "integer", required=True),
    "retry-after-ms": _header("The same in milliseconds.", "integer", required=True),
    "x-should-retry": _header("`false`: the same request would fail again."),
    "openai-poll-after-ms": _header("When to ask again, while the video is not final.", "integer"),
    "x-tav-model-version": _header("`name/version` that was sampled.", required=True),
    "x-tav-video-id": _header("The video's id, where it is recorded."),
    "Content-Disposition": _header("A name to save the bytes by.", required=True),
    "Cache-Control": _header("Whether the answer may be kept."),
    "ETag": _header("Changes when the bytes do.", required=True),
    "Accept-Ranges": _header("`bytes`: a range of them may be asked for."),
    "Content-Range": _header("Which bytes these are, and of how many.", required=True),
    "WWW-Authenticate": _header("`Bearer`: a key is needed.", required=True),
}
"""Headers of responses besides HTTP's own."""

_HEADERS_BY_STATUS = {
    "401": ("WWW-Authenticate",),
    "409": ("x-should-retry",),
    "416": ("Content-Range",),
    "429": ("retry-after", "retry-after-ms"),
    "500": ("x-should-retry",),
    "503": ("retry-after", "retry-after-ms"),
}
_JOBS, _VIDEO = "/v1/tuning-jobs", "/v1/videos/{video_id}"
_VIDEO_HEADERS = ("x-tav-model-version", "x-tav-video-id", "Content-Disposition")
_CONTENT_HEADERS = (*_VIDEO_HEADERS, "ETag", "Accept-Ranges", "Cache-Control")
_HEADERS_BY_CALL = {
    f"POST {_JOBS} 201": ("Location",),
    f"POST {_JOBS}/{{job_id}}/retry 201": ("Location",),
    f"GET {_JOBS}/{{job_id}}/events 200": ("Cache-Control",),
    f"GET {_JOBS}/{{job_id}}/logs 200": ("Cache-Control",),
    "POST /v1/videos 200": ("openai-poll-after-ms",),
    f"GET {_VIDEO} 200": ("openai-poll-after-ms",),
    f"GET {_VIDEO}/events 200": ("Cache-Control",),
    f"GET {_VIDEO}/content 200": _CONTENT_HEADERS,
    f"GET {_VIDEO}/content 206": (*_CONTENT_HEADERS, "Content-Range"),
    f"GET {_VIDEO}/content 304": _CONTENT_HEADERS,
    "POST /v1/videos/sync 200": _VIDEO_HEADERS,
}

TAGS = [
    {"name": "bases", "description": "What the service tunes on, offers and allows."},
    {"name": "tuning jobs", "description": "One clip tuned on one base with one configuration."},
    {"name": "batches", "description": "Jobs that were submitted under one label."},
    {"name": "models", "description": "The registry: named models, and the versions that jobs made."},
    {"name": "videos", "description": "A model version and an edited prompt, in the shape of OpenAI's `videos`."},
    {"name": "operations", "description": "Is it up, and is it ready? Needs no key."},
]

DESCRIPTION = """
Submit one short clip with a caption; a small *delta* is tuned for it on a frozen text-to-image base. Then turn edited
prompts into new videos that keep the clip's motion.

1. `POST /v1/tuning-jobs` with the clip, and follow `GET /v1/tuning-jobs/{id}/events`.
2. `POST /v1/videos/sync` with the job's `model` and an edited prompt, and save the answer as an mp4.

Every error is `application/problem+json` with a sentence that says what to do and a stable `code`.
"""


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the error responses of a call, for its description."""
    content = {"application/problem+json": {"schema": {"$ref": _REF.format(model=Problem.__name__)}}}
    return {status: {"description": _DESCRIPTIONS[status], "content": content} for status in sorted(statuses)}


def json_body(model: type[BaseModel]) -> dict[str, Any]:
    """Describe a JSON body that the route reads itself."""
    schema = {"$ref": _REF.format(model=model.__name__)}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def fields_body(model: type[BaseModel]) -> dict[str, Any]:
    """Describe a body that is JSON, or multipart/form-data with a part for each field."""
    body = json_body(model)
    content = body["requestBody"]["content"]
    content["multipart/form-data"] = content["application/json"]
    return body


def job_body() -> dict[str, Any]:
    """Describe a tuning job's body: an upload, or JSON."""
    body = json_body(TuningJobCreate)
    job = body["requestBody"]["content"]["application/json"]["schema"]
    body["requestBody"]["content"]["multipart/form-data"] = {
        "schema": {
            "type": "object",
            "required": ["clip", "job"],
            "properties": {
                "clip": {"type": "string", "format": "binary", "description": "The file: mp4, mov, mkv, webm, avi or gif."},
                "job": job,
            },
        },
        "encoding": {"job": {"contentType": "application/json"}},
    }
    return body


def operation_id(route: APIRoute) -> str:
    """Return a call's name in generated clients, from its summary: `submit_tuning_job`."""
    if "operations" in route.tags:
        return route.name
    words = re.findall(r"[a-z]+", re.sub(r"'s\b", "", str(route.summary).lower()))
    return "_".join(word for word in words if word not in ("a", "an", "the"))


def install(app: FastAPI, keys: bool) -> None:
    """Add to the description what FastAPI does not see: bodies that routes read themselves, problems, headers, keys, examples.

    Args:
        app: the application.
        keys: whether it requires keys.
    """

    def describe() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(
                title=app.title, version=app.version, description=app.description, tags=app.openapi_tags, routes=app.routes
            )
            components = schema.setdefault("components", {})
            known = components.setdefault("schemas", {})
            referenced = {ref.rpartition("/")[2] for ref in re.findall(r'"\$ref": "([^"]+)"', json.dumps(schema))}
            models: list[tuple[type[BaseModel], Any]] = [
                (getattr(schemas, name), "serialization" if name == Problem.__name__ else "validation")
                for name in sorted(referenced - known.keys())
            ]
            _, definitions = models_json_schema(models, ref_template=_REF)
            for name, definition in definitions["$defs"].items():
                known.setdefault(name, definition)
            for name in _FASTAPI_ERRORS:
                known.pop(name, None)
            for name, example in EXAMPLES.items():
                known[name]["examples"] = [example]
            components["headers"] = RESPONSE_HEADERS
            components["securitySchemes"] = {"key": _KEY}
            for path, methods in schema["paths"].items():
                for method, operation in methods.items():
                    _complete(operation, f"{method.upper()} {path}", [{"key": []}] if keys else [{}, {"key": []}])
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = describe  # type: ignore[method-assign]


def _can_be_invalid(parameter: dict[str, Any]) -> bool:
    return parameter["in"] != "path" or parameter["schema"].keys() - {"title", "description"} != {"type"}


def _complete(operation: dict[str, Any], call: str, security: list[dict[str, list[str]]]) -> None:
    responses = operation["responses"]
    if responses.get("422", {}).get("content", {}).get("application/json") is not None:
        del responses["422"]  # FastAPI's, of its own shape, for every call with a parameter
    fallible = any(_can_be_invalid(parameter) for parameter in operation.get("parameters", ()))
    refusals: tuple[int, ...] = (422,) if fallible else ()
    if "requestBody" in operation:
        refusals = (408, 415, 422)
    responses.update({str(status): problem for status, problem in problems(*refusals).items()} | responses)
    if " /v1/" in call:
        operation["security"] = security
    for status, response in responses.items():
        names = ["x-request-id", *_HEADERS_BY_STATUS.get(status, ()), *_HEADERS_BY_CALL.get(f"{call} {status}", ())]
        response["headers"] = {name: {"$ref": f"#/components/headers/{name}"} for name in names}
