"""Sharing models, and what an operator's key asks for another tenant."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fastapi import Response

from tav_client import TavClient, schemas
from tests.client.test_client_cli import tav


def test_a_model_is_shared_and_no_longer(service: Any) -> None:
    service.on(
        "PATCH",
        "/v1/models/red-ball",
        service.ok(service.model(tenant="alice", shared=True)),
        service.ok(service.model(tenant="alice")),
    )
    shared, stopped = tav("models", "share", "red-ball"), tav("models", "share", "red-ball", "--stop")
    assert shared.stdout == "red-ball is shared: others name it alice~red-ball\n"
    assert stopped.stdout == "red-ball is shared no longer\n"
    assert [json.loads(asked.body) for asked in service.asked] == [{"shared": True}, {"shared": False}]


def test_a_model_that_another_shares_is_asked_for_by_its_owners_name(service: Any) -> None:
    service.on("POST", "/v1/videos", service.ok(service.video(model="alice~red-ball@production")))
    with TavClient() as client:
        client.videos.create(model="alice~red-ball@production", prompt="a blue ball")
    assert service.asked[0].json["model"] == "alice~red-ball@production"


def test_an_operator_says_whose_things_every_call_is_about_and_s3_does_not_hear_of_it(service: Any, tmp_path: Path) -> None:
    upload = schemas.Upload(url=f"{service.url}/tav/uploads/5a?sig=s", headers={}, clip_uri="s3://tav/uploads/5a", expires_at=9)
    service.on("POST", "/v1/uploads", service.ok(upload, 201))
    service.on("PUT", "/tav/uploads/5a", Response())
    service.on("GET", "/v1/tuning-jobs", service.page(service.job()))
    clip = tmp_path / "ball.mp4"
    clip.write_bytes(b"clip")
    with TavClient(tenant="alice") as client:
        client.uploads.create(clip)
    assert tav("--tenant", "*", "jobs", "list", "--status", "queued").exit_code == 0
    asked = [(one.path, one.query) for one in service.asked]
    assert asked == [
        ("/v1/uploads", {"tenant": "alice"}),
        ("/tav/uploads/5a", {"sig": "s"}),
        ("/v1/tuning-jobs", {"status": "queued", "limit": "20", "tenant": "*"}),
    ]
