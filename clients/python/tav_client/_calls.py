"""The API's calls as values: how each is asked and how its answer is read, without a socket.

A transport, synchronous or not, sends a `Call` and hands the answer to its `read`. Adding a call to the client is adding a
function here.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar
from urllib.parse import parse_qsl, quote

import httpx
from pydantic import BaseModel, ValidationError

from tav_client import schemas
from tav_client._content import VideoContent
from tav_client._errors import APIResponseError, APIStatusError, InvalidRequest, NotFound, status_error
from tav_client._sentences import faults

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)

SYNC_TIMEOUT = 900.0
"""Seconds a synchronous video may take: a cold sampler loads a base first."""


Variant = Literal["video", "thumbnail", "spritesheet"]

STRANGER = "did not answer as a tav service does: check the base URL and the versions of both sides."


@dataclass(frozen=True)
class Call(Generic[T]):
    """One request, and how to read its answer."""

    method: str
    path: str
    read: Callable[[httpx.Response], T]
    params: Mapping[str, str | int] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: BaseModel | None = None
    clip: Path | None = None
    """Sent as the part `clip`, the body then being the part `job`."""
    repeatable: bool = True
    """Sending it twice does no more than sending it once."""
    timeout: float | None = None
    """Seconds to wait for an answer; None: the client's own."""

    def arguments(self, files: ExitStack) -> dict[str, Any]:
        """Return the arguments of `httpx.Client.build_request` for one attempt; files are opened anew and closed by `files`."""
        arguments: dict[str, Any] = {"method": self.method, "url": self.path, "headers": dict(self.headers)}
        if self.params:
            arguments["params"] = dict(self.params)
        if self.body is None:
            return arguments
        text = self.body.model_dump_json(exclude_unset=True)
        if self.clip is None:
            arguments["content"] = text
            arguments["headers"]["Content-Type"] = "application/json"
        else:
            clip = files.enter_context(self.clip.open("rb"))
            arguments["files"] = {
                "job": (None, text, "application/json"),
                "clip": (self.clip.name, clip, "application/octet-stream"),
            }
        return arguments


def request_of(model: type[M], fields: Mapping[str, Any]) -> M:
    """Make a request of type `model` from the caller's arguments, None meaning left out.

    Raises:
        InvalidRequest: with one sentence that names every field at fault.
    """
    try:
        return model.model_validate({name: value for name, value in fields.items() if value is not None})
    except ValidationError as error:
        raise InvalidRequest(" ".join(fault.text for fault in faults(error.errors(include_url=False), model))) from None


def problem_of(response: httpx.Response) -> schemas.Problem:
    """Parse the problem in a response of 400 or above; made from the status where the body is another (a proxy's page)."""
    try:
        return schemas.Problem.model_validate_json(response.content)
    except ValidationError:
        detail = f"{response.request.url} answered {response.status_code} {response.reason_phrase}."
        return schemas.Problem(
            title=response.reason_phrase or "Error", status=response.status_code, detail=detail, code="unknown"
        )


def raise_for_problem(response: httpx.Response) -> None:
    """Raise the problem of a response of 400 or above, which must have been read.

    Raises:
        APIStatusError: the class that belongs to its status.
    """
    if response.status_code >= 400:
        raise status_error(problem_of(response), response.headers.get("x-request-id"))


def is_about_the_clip(problem: APIStatusError) -> bool:
    """Say whether the service refuses this clip or what is asked for it, and may take another."""
    return problem.status in (413, 415, 422) or problem.code == "clip_uri_not_allowed"


def _one(model: type[M]) -> Callable[[httpx.Response], M]:
    def read(response: httpx.Response) -> M:
        try:
            return model.model_validate_json(response.content)
        except ValidationError:
            raise APIResponseError(
                f"{response.request.url} {STRANGER}", request_id=response.headers.get("x-request-id")
            ) from None

    return read


def _is_event_stream(response: httpx.Response) -> None:
    if not response.headers.get("content-type", "").startswith("text/event-stream"):
        raise APIResponseError(f"{response.request.url} {STRANGER}")


def _content(response: httpx.Response) -> VideoContent:
    return VideoContent(
        response.content,
        content_type=response.headers.get("content-type", ""),
        model_version=response.headers.get("x-tav-model-version"),
        video_id=response.headers.get("x-tav-video-id"),
        unread=dict(parse_qsl(response.headers.get("x-tav-unread", ""))),
    )


def _segment(name: str, value: str) -> str:
    if not value or value in (".", ".."):
        raise InvalidRequest(f"{value!r} is not a {name}.")
    return quote(value, safe="")


def _without_none(**params: str | int | None) -> dict[str, str | int]:
    return {name: value for name, value in params.items() if value is not None}


def check_clip(clip: Path) -> None:
    """Check that the clip is there.

    Raises:
        InvalidRequest: there is no such file.
    """
    if not clip.is_file():
        raise InvalidRequest(f"There is no file {str(clip)!r}: give the path of a video file as clip.")


def create_job(request: schemas.TuningJobCreate, clip: Path | None, key: str | None) -> Call[schemas.TuningJob]:
    """Make the call `POST /v1/tuning-jobs`; without a key it gets a random one, which makes it repeatable."""
    if (clip is None) == (request.clip_uri is None):
        raise InvalidRequest("Give either clip (a file) or clip_uri (s3://bucket/key).")
    if clip is not None:
        check_clip(clip)
    headers = {"Idempotency-Key": key or str(uuid.uuid4())}
    return Call("POST", "/v1/tuning-jobs", _one(schemas.TuningJob), headers=headers, body=request, clip=clip)


def list_jobs(
    after: str | None,
    limit: int | None,
    status: schemas.JobStatus | None,
    model: str | None,
    batch: str | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Call[schemas.Page[schemas.TuningJob]]:
    """Make the call `GET /v1/tuning-jobs`."""
    params = _without_none(after=after, limit=limit, status=status and status.value, model=model, batch=batch)
    params |= {f"metadata.{key}": value for key, value in (metadata or {}).items()}
    return Call("GET", "/v1/tuning-jobs", _one(schemas.Page[schemas.TuningJob]), params=params)


def get_job(id: str) -> Call[schemas.TuningJob]:
    """Make the call `GET /v1/tuning-jobs/{id}`."""
    return Call("GET", f"/v1/tuning-jobs/{_segment('job id', id)}", _one(schemas.TuningJob))


def cancel_job(id: str) -> Call[schemas.TuningJob]:
    """Make the call `POST /v1/tuning-jobs/{id}/cancel`."""
    return Call("POST", f"/v1/tuning-jobs/{_segment('job id', id)}/cancel", _one(schemas.TuningJob))


def retry_job(id: str, key: str | None) -> Call[schemas.TuningJob]:
    """Make the call `POST /v1/tuning-jobs/{id}/retry`; without a key it gets a random one, which makes it repeatable."""
    headers = {"Idempotency-Key": key or str(uuid.uuid4())}
    return Call("POST", f"/v1/tuning-jobs/{_segment('job id', id)}/retry", _one(schemas.TuningJob), headers=headers)


def delete_job(id: str) -> Call[schemas.JobDeleted]:
    """Make the call `DELETE /v1/tuning-jobs/{id}`."""
    return Call("DELETE", f"/v1/tuning-jobs/{_segment('job id', id)}", _one(schemas.JobDeleted))


def job_logs(id: str) -> Call[str]:
    """Make the call `GET /v1/tuning-jobs/{id}/logs`."""
    return Call("GET", f"/v1/tuning-jobs/{_segment('job id', id)}/logs", lambda response: response.text)


def job_log_stream(id: str, follow: bool, begin: Callable[[httpx.Response], None]) -> Call[None]:
    """Make the call `GET /v1/tuning-jobs/{id}/logs?follow=true`; the response is a stream, read by `_logs.LogStream`."""
    return Call("GET", f"/v1/tuning-jobs/{_segment('job id', id)}/logs", begin, params={"follow": "true"} if follow else {})


def get_batch(id: str) -> Call[schemas.Batch]:
    """Make the call `GET /v1/batches/{id}`."""
    return Call("GET", f"/v1/batches/{_segment('batch', id)}", _one(schemas.Batch))


def cancel_batch(id: str) -> Call[schemas.Batch]:
    """Make the call `POST /v1/batches/{id}/cancel`."""
    return Call("POST", f"/v1/batches/{_segment('batch', id)}/cancel", _one(schemas.Batch))


def job_events(id: str, last_event_id: str | None) -> Call[None]:
    """Make the call `GET /v1/tuning-jobs/{id}/events`; the response is a stream, read by `_events.EventStream`."""
    headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last_event_id} if last_event_id else {})
    return Call("GET", f"/v1/tuning-jobs/{_segment('job id', id)}/events", _is_event_stream, headers=headers)


def share_model(name: str, shared: bool) -> Call[schemas.Model]:
    """Make the call `PATCH /v1/models/{name}`."""
    body = request_of(schemas.ModelUpdate, {"shared": shared})
    return Call("PATCH", f"/v1/models/{_segment('model name', name)}", _one(schemas.Model), body=body)


def set_alias(name: str, alias: str, version: int) -> Call[schemas.Model]:
    """Make the call `PUT /v1/models/{name}/aliases/{alias}`."""
    body = request_of(schemas.AliasSet, {"version": version})
    return Call("PUT", _alias_path(name, alias), _one(schemas.Model), body=body)


def delete_alias(name: str, alias: str) -> Call[schemas.Model]:
    """Make the call `DELETE /v1/models/{name}/aliases/{alias}`."""
    return Call("DELETE", _alias_path(name, alias), _one(schemas.Model))


def _alias_path(name: str, alias: str) -> str:
    return f"/v1/models/{_segment('model name', name)}/aliases/{_segment('alias', alias)}"


def delete_model(name: str) -> Call[schemas.ModelDeleted]:
    """Make the call `DELETE /v1/models/{name}`."""
    return Call("DELETE", f"/v1/models/{_segment('model name', name)}", _one(schemas.ModelDeleted))


def delete_version(name: str, version: int) -> Call[schemas.ModelVersionDeleted]:
    """Make the call `DELETE /v1/models/{name}/versions/{v}`."""
    return Call("DELETE", f"/v1/models/{_segment('model name', name)}/versions/{version}", _one(schemas.ModelVersionDeleted))


def create_upload(size: int, content_type: str) -> Call[schemas.Upload]:
    """Make the call `POST /v1/uploads`."""
    body = request_of(schemas.UploadCreate, {"bytes": size, "content_type": content_type})
    return Call("POST", "/v1/uploads", _one(schemas.Upload), body=body)


def create_estimate(request: schemas.EstimateCreate) -> Call[schemas.Estimates]:
    """Make the call `POST /v1/estimates`."""
    return Call("POST", "/v1/estimates", _one(schemas.Estimates), body=request)


def list_bases() -> Call[schemas.Bases]:
    """Make the call `GET /v1/bases`."""
    return Call("GET", "/v1/bases", _one(schemas.Bases))


def get_metrics(job_id: str, points: int | None) -> Call[schemas.JobMetrics]:
    """Make the call `GET /v1/tuning-jobs/{id}/metrics`."""
    path = f"/v1/tuning-jobs/{_segment('job id', job_id)}/metrics"
    return Call("GET", path, _one(schemas.JobMetrics), params=_without_none(points=points))


def list_models(after: str | None, limit: int | None) -> Call[schemas.Page[schemas.Model]]:
    """Make the call `GET /v1/models`."""
    return Call("GET", "/v1/models", _one(schemas.Page[schemas.Model]), params=_without_none(after=after, limit=limit))


def get_model(name: str) -> Call[schemas.Model]:
    """Make the call `GET /v1/models/{name}`."""
    return Call("GET", f"/v1/models/{_segment('model name', name)}", _one(schemas.Model))


def list_versions(name: str, after: str | None, limit: int | None) -> Call[schemas.Page[schemas.ModelVersion]]:
    """Make the call `GET /v1/models/{name}/versions`."""
    path = f"/v1/models/{_segment('model name', name)}/versions"
    return Call("GET", path, _one(schemas.Page[schemas.ModelVersion]), params=_without_none(after=after, limit=limit))


def get_version(name: str, version: int) -> Call[schemas.ModelVersion]:
    """Make the call `GET /v1/models/{name}/versions/{v}`."""
    return Call("GET", f"/v1/models/{_segment('model name', name)}/versions/{version}", _one(schemas.ModelVersion))


def split_ref(ref: str, version: int | str | None) -> tuple[str, int | str | None]:
    """Split a model's name from a version's number or an alias: from `name/version` or `name@alias`, or from two arguments."""
    if version is None and "@" in ref:
        name, _, alias = ref.partition("@")
        return name, alias
    if version is None and "/" in ref:
        ref, _, version = ref.rpartition("/")
    return ref, int(version) if isinstance(version, str) and version.isdecimal() else version


def number_of(model: schemas.Model, alias: str | None) -> int:
    """Return the version that an alias, or None (the latest), means.

    Raises:
        NotFound: the model has no such alias.
    """
    if alias is None:
        return model.latest_version
    if alias in model.aliases:
        return model.aliases[alias]
    known = ", ".join(sorted(model.aliases)) or "none"
    detail = f"Model {model.name!r} has no alias {alias!r}; it has {known}."
    raise NotFound(schemas.Problem(title="Not Found", status=404, detail=detail, code="version_not_found"))


@dataclass(frozen=True)
class Polled:
    """A video, and when to ask for it again."""

    video: schemas.Video
    after: float


def _polled(response: httpx.Response) -> Polled:
    milliseconds = response.headers.get("openai-poll-after-ms", "")
    return Polled(_one(schemas.Video)(response), int(milliseconds) / 1000 if milliseconds.isdecimal() else 1.0)


def create_video(request: schemas.VideoCreate, key: str | None) -> Call[Polled]:
    """Make the call `POST /v1/videos`; without a key it gets a random one, which makes it repeatable."""
    headers = {"Idempotency-Key": key or str(uuid.uuid4())}
    return Call("POST", "/v1/videos", _polled, headers=headers, body=request)


def get_video(id: str) -> Call[Polled]:
    """Make the call `GET /v1/videos/{id}`."""
    return Call("GET", f"/v1/videos/{_segment('video id', id)}", _polled)


def list_videos(
    after: str | None, limit: int | None, order: str | None, model: str | None
) -> Call[schemas.Page[schemas.Video]]:
    """Make the call `GET /v1/videos`."""
    params = _without_none(after=after, limit=limit, order=order, model=model)
    return Call("GET", "/v1/videos", _one(schemas.VideoPage), params=params)


def delete_video(id: str) -> Call[schemas.VideoDeleted]:
    """Make the call `DELETE /v1/videos/{id}`."""
    return Call("DELETE", f"/v1/videos/{_segment('video id', id)}", _one(schemas.VideoDeleted))


def video_events(id: str, last_event_id: str | None) -> Call[None]:
    """Make the call `GET /v1/videos/{id}/events`; the response is a stream, read by `_events.EventStream`."""
    headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last_event_id} if last_event_id else {})
    return Call("GET", f"/v1/videos/{_segment('video id', id)}/events", _is_event_stream, headers=headers)


def video_content(id: str, variant: Variant = "video") -> Call[VideoContent]:
    """Make the call `GET /v1/videos/{id}/content`."""
    return Call("GET", _content_path(id), _content, params=_variant(variant))


def content_stream(
    id: str, variant: Variant, headers: Mapping[str, str], begin: Callable[[httpx.Response], None]
) -> Call[None]:
    """Make the call `GET /v1/videos/{id}/content`; the response is a stream, of which `begin` sees the headers."""
    return Call("GET", _content_path(id), begin, params=_variant(variant), headers=headers)


def _content_path(id: str) -> str:
    return f"/v1/videos/{_segment('video id', id)}/content"


def _variant(variant: Variant) -> dict[str, str]:
    return {} if variant == "video" else {"variant": variant}


def sync_video(request: schemas.VideoCreate) -> Call[VideoContent]:
    """Make the call `POST /v1/videos/sync`; it takes no key, so only a request that was not accepted is sent again."""
    return Call("POST", "/v1/videos/sync", _content, body=request, repeatable=False, timeout=SYNC_TIMEOUT)
