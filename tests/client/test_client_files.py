"""Files in and out: downloads that go on after a cut, uploads past the service, and notebooks."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tav_client
from tav_client import TavClient, schemas
from tests.client.test_client_videos import BYTES, content


class Cutting(http.server.BaseHTTPRequestHandler):
    """Sends a part of what was asked for, then hangs up; from the second request on, all that is missing."""

    ranges: list[str | None]
    etag = '"one"'

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        fits = asked is not None and self.headers.get("If-Range") == self.etag
        self.ranges.append(asked)
        begin = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and fits else 0
        data = BYTES[begin:]
        self.send_response(206 if begin else 200)
        self.send_header("ETag", self.etag)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[:1000] if len(self.ranges) == 1 else data)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def cutting() -> Iterator[type[Cutting]]:
    handler = type("Once", (Cutting,), {"ranges": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        handler.url = f"http://127.0.0.1:{server.server_port}"
        yield handler
        server.shutdown()
        thread.join()


def test_a_download_that_is_cut_goes_on_where_it_was(cutting: Any, tmp_path: Path) -> None:
    with TavClient(cutting.url) as client:
        path = client.videos.download("v1", tmp_path / "deep" / "a.mp4")
    assert path.read_bytes() == BYTES
    assert cutting.ranges == [None, "bytes=1000-"]


def test_content_that_changed_meanwhile_is_fetched_from_its_beginning(cutting: Any, tmp_path: Path) -> None:
    original = cutting.do_GET

    def do_GET(self: Any) -> None:
        self.etag = f'"{len(self.ranges)}"'
        original(self)

    cutting.do_GET = do_GET
    with TavClient(cutting.url) as client:
        assert client.videos.download("v1", tmp_path / "a.mp4").read_bytes() == BYTES


def test_a_download_that_fails_leaves_no_file(service: Any, client: TavClient, tmp_path: Path) -> None:
    service.on("GET", "/v1/videos/v1/content", service.problem(409, "video_not_ready", **{"x_should_retry": "false"}))
    with pytest.raises(tav_client.Conflict):
        client.videos.download("v1", tmp_path / "a.mp4")
    assert list(tmp_path.iterdir()) == []


def test_saving_a_video_shows_how_much_has_come(service: Any, client: TavClient, tmp_path: Path, capfd: Any) -> None:
    service.on("GET", "/v1/videos/v1", service.ok(service.video("completed", progress=100)))
    service.on("GET", "/v1/videos/v1/content", content())
    client.videos.get("v1").save(tmp_path / "a.mp4", progress=True)
    assert "100%  download" in capfd.readouterr().err
    assert (tmp_path / "a.mp4").read_bytes() == BYTES


def test_a_thumbnail_is_asked_for_by_its_name(service: Any, client: TavClient) -> None:
    service.on("GET", "/v1/videos/v1/content", content("image/jpeg"))
    assert client.videos.content("v1", "thumbnail").content_type == "image/jpeg"
    assert service.asked[0].query == {"variant": "thumbnail"}


def test_an_upload_goes_to_s3_without_the_services_key(service: Any, tmp_path: Path) -> None:
    clip = tmp_path / "ball.mp4"
    clip.write_bytes(b"clip" * 1000)
    upload = schemas.Upload(
        url=f"{service.url}/tav/uploads/5a?X-Amz-Signature=s",
        headers={"Content-Type": "video/mp4"},
        clip_uri="s3://tav/uploads/5a",
        expires_at=9.0,
    )
    service.on("POST", "/v1/uploads", service.ok(upload, 201))
    service.on("PUT", "/tav/uploads/5a", service.problem(500, "busy"), content())
    with TavClient(api_key="secret") as client:
        assert client.uploads.create(clip) == "s3://tav/uploads/5a"
    asked, *puts = service.asked
    assert asked.json == {"bytes": 4000, "content_type": "video/mp4"} and asked.headers["authorization"] == "Bearer secret"
    assert [put.body for put in puts] == [b"clip" * 1000] * 2
    assert all("authorization" not in put.headers and put.headers["content-length"] == "4000" for put in puts)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.MTS", "video/mp2t"),
        ("a.ts", "video/mp2t"),
        ("a.webp", "image/webp"),
        ("a.mov", "video/quicktime"),
        ("a.xyz", "video/mp4"),
    ],
)
def test_an_upload_is_sent_as_a_type_that_the_service_takes(service: Any, tmp_path: Path, name: str, kind: str) -> None:
    (tmp_path / name).write_bytes(b"clip")
    upload = schemas.Upload(url=f"{service.url}/put", headers={}, clip_uri="s3://tav/uploads/5a", expires_at=9.0)
    service.on("POST", "/v1/uploads", service.ok(upload, 201))
    service.on("PUT", "/put", content())
    with TavClient() as client:
        client.uploads.create(tmp_path / name)
    assert schemas.UploadCreate.model_validate(service.asked[0].json).content_type == kind


def test_notebooks_show_jobs_models_and_videos(service: Any, client: TavClient) -> None:
    job = service.job("running", phase="tuning", step=1, total_steps=2, caption="<a ball>", mlflow_url="http://mlflow/#/1")
    service.on("GET", "/v1/tuning-jobs/j1", service.ok(job))
    service.on("GET", "/v1/videos/v1", service.ok(service.video("in_progress", progress=50)))
    shown = client.jobs.get("j1")._repr_html_()
    assert "&lt;a ball&gt;" in shown and "<progress" in shown and "href='http://mlflow/#/1'" in shown
    assert "50%" in client.videos.get("v1")._repr_html_()
    assert "production: 1" in service.model()._repr_html_() and "delta.safetensors" in service.version()._repr_html_()


def test_a_videos_content_plays_in_a_notebook(service: Any, client: TavClient) -> None:
    service.on("GET", "/v1/videos/v1/content", content(), content("image/gif"))
    assert client.videos.content("v1")._repr_html_().startswith("<video controls")
    assert client.videos.content("v1")._repr_html_().startswith("<img src='data:image/gif;base64,")
