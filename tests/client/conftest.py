"""A stand-in for the gateway: a real server on a free port.

It answers what a test lays out for it, and remembers what it was asked.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI, Request, Response

from tav_client import TavClient, schemas

Answer = Response | Callable[["Asked"], Response]


@dataclass(frozen=True)
class Asked:
    """One request as the server saw it."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    form: dict[str, tuple[str | None, bytes]] = field(default_factory=dict)
    """Part name → (filename, bytes)."""

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Service:
    """Answers in the order laid out for a path; the last answer stays. What is not laid out is 404."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.asked: list[Asked] = []
        self._answers: dict[tuple[str, str], list[Answer]] = {}

    def on(self, method: str, path: str, *answers: Answer) -> None:
        """Lays out the answers of a path."""
        self._answers[method, path] = list(answers)

    def answer(self, asked: Asked) -> Response:
        self.asked.append(asked)
        answers = self._answers.get((asked.method, asked.path))
        if not answers:
            return self.problem(404, "not_found", f"There is no {asked.path}.")
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        return answer if isinstance(answer, Response) else answer(asked)

    @staticmethod
    def ok(value: schemas.BaseModel, status: int = 200, **headers: str) -> Response:
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        return Response(value.model_dump_json(), status, named, "application/json")

    @staticmethod
    def problem(status: int, code: str, detail: str = "Do something else.", **headers: str) -> Response:
        body = schemas.Problem(title="A problem", status=status, detail=detail, code=code)
        named = {"x-request-id": "req-7"} | {name.replace("_", "-"): text for name, text in headers.items()}
        return Response(body.model_dump_json(), status, named, "application/problem+json")

    @staticmethod
    def page(*entries: schemas.BaseModel, cursor: str | None = None) -> Response:
        page = {"data": [entry.model_dump(mode="json") for entry in entries], "next_cursor": cursor, "has_more": bool(cursor)}
        return Response(json.dumps(page), media_type="application/json")

    @staticmethod
    def events(*jobs: schemas.TuningJob, first: int = 1, tail: str = "") -> Response:
        """A stream of snapshots numbered from `first`, with comments between them, which then ends."""
        text = "".join(
            f": keep-alive\n\nid: {number}\nevent: job\ndata: {job.model_dump_json()}\n\n"
            for number, job in enumerate(jobs, first)
        )
        return Response(text + tail, media_type="text/event-stream")

    @staticmethod
    def job(status: str = "queued", **fields: Any) -> schemas.TuningJob:
        clip = schemas.ClipInfo(uri="s3://tav/clips/9b.mp4", sha256="9b", width=64, height=64, num_frames=24, fps=12)
        given = {
            "id": "j1",
            "status": status,
            "created_at": 1.0,
            "caption": "a red ball",
            "clip": clip,
            "base": "offline",
            "model": "red-ball",
            "params": schemas.JobParams(),
        }
        return schemas.TuningJob.model_validate(given | fields)

    @staticmethod
    def video(status: str = "queued", **fields: Any) -> schemas.Video:
        given = {
            "id": "v1",
            "status": status,
            "created_at": 1.0,
            "model": "red-ball",
            "model_version": "red-ball/1",
            "prompt": "a blue ball",
            "request": {"model": "red-ball", "prompt": "a blue ball"},
        }
        return schemas.Video.model_validate(given | fields)

    @staticmethod
    def model(name: str = "red-ball", **fields: Any) -> schemas.Model:
        given = {"name": name, "created_at": 1.0, "updated_at": 2.0, "latest_version": 2, "aliases": {"production": 1}}
        return schemas.Model.model_validate(given | fields)

    @staticmethod
    def version(number: int = 1) -> schemas.ModelVersion:
        file = schemas.StoredFile(uri="s3://tav/models/red-ball/j1/delta.safetensors", sha256="52", size=10)
        return schemas.ModelVersion(
            name="red-ball",
            version=number,
            created_at=1.0,
            job_id="j1",
            base="offline",
            base_fingerprint="b94d",
            caption="a red ball",
            num_frames=8,
            size=(64, 64),
            files={"delta.safetensors": file},
        )


@pytest.fixture(scope="session")
def _server() -> Iterator[tuple[str, list[Service]]]:
    current: list[Service] = []
    app = FastAPI()

    @app.api_route("/{path:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
    async def anything(request: Request) -> Response:
        form = {}
        if request.headers.get("content-type", "").startswith("multipart/"):
            for name, part in (await request.form()).items():
                form[name] = (None, part.encode()) if isinstance(part, str) else (part.filename, await part.read())
        asked = Asked(
            request.method,
            request.url.path,
            dict(request.query_params),
            dict(request.headers),
            b"" if form else await request.body(),
            form,
        )
        return current[-1].answer(asked)

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_keep_alive=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", current
        server.should_exit = True
        thread.join()


@pytest.fixture
def service(_server: tuple[str, list[Service]], monkeypatch: pytest.MonkeyPatch) -> Service:
    """A fresh stand-in; `TAV_URL` points at it."""
    url, current = _server
    current[:] = [Service(url)]
    monkeypatch.setenv("TAV_URL", url)
    monkeypatch.delenv("TAV_API_KEY", raising=False)
    return current[0]


@pytest.fixture
def client(service: Service) -> Iterator[TavClient]:
    """A client of the stand-in."""
    with TavClient() as client:
        yield client
