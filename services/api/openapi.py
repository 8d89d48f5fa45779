"""What the interface's description says beyond what FastAPI sees in the signatures."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from tav_client.schemas import AliasSet, EstimateCreate, Problem, TuningJobCreate, UploadCreate, VideoCreate

_REF = "#/components/schemas/{model}"
_BODIES: tuple[type[BaseModel], ...] = (AliasSet, EstimateCreate, TuningJobCreate, UploadCreate, VideoCreate)
"""Handlers read them themselves, so that FastAPI does not see them."""
_ABOUT = {
    401: "A key is needed",
    403: "`clip_uri` is not in an allowed bucket",
    404: "There is no such thing",
    409: "The present state does not allow it",
    408: "The body did not come in time",
    413: "The clip is too large",
    429: "Too many requests of yours came, or too many jobs of yours wait",
    415: "Not a type of body that this call takes",
    416: "There are not so many bytes",
    422: "The request, or the clip, is invalid",
    500: "A defect of the service, or the sampling failed",
    503: "Something that is needed does not answer, or too much is waiting",
}

TAGS = [
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
    """The error answers of a call, for its description."""
    content = {"application/problem+json": {"schema": {"$ref": _REF.format(model=Problem.__name__)}}}
    return {status: {"description": _ABOUT[status], "content": content} for status in sorted(statuses)}


def json_body(model: type[BaseModel]) -> dict[str, Any]:
    """A JSON body that the handler reads itself."""
    schema = {"$ref": _REF.format(model=model.__name__)}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def fields_body(model: type[BaseModel]) -> dict[str, Any]:
    """A body that is JSON or one part of multipart/form-data for each field."""
    body = json_body(model)
    content = body["requestBody"]["content"]
    content["multipart/form-data"] = content["application/json"]
    return body


def job_body() -> dict[str, Any]:
    """A tuning job's body: an upload, or JSON."""
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


def install(app: FastAPI) -> None:
    """Describe the bodies that handlers read themselves, and problems, too."""

    def describe() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(
                title=app.title, version=app.version, description=app.description, tags=app.openapi_tags, routes=app.routes
            )
            models: list[tuple[type[BaseModel], Any]] = [
                *((model, "validation") for model in _BODIES),
                (Problem, "serialization"),
            ]
            _, definitions = models_json_schema(models, ref_template=_REF)
            known = schema.setdefault("components", {}).setdefault("schemas", {})
            for name, definition in definitions["$defs"].items():
                known.setdefault(name, definition)
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = describe  # type: ignore[method-assign]
