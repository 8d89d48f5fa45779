"""`docs/http.md` agrees with the schemas."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tav_client import schemas

TEXT = (Path(__file__).parents[2] / "docs" / "http.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```[a-z]*\n(.*?)^```", TEXT, re.M | re.S)
ANSWERS = {
    "tuning_job": schemas.TuningJob,
    "tuning_job.deleted": schemas.JobDeleted,
    "batch": schemas.Batch,
    "video": schemas.Video,
    "video.deleted": schemas.VideoDeleted,
    "model": schemas.Model,
    "model.deleted": schemas.ModelDeleted,
    "model_version.deleted": schemas.ModelVersionDeleted,
    "upload": schemas.Upload,
    "estimate": schemas.Estimates,
    "model_version": schemas.ModelVersion,
    "list": schemas.Page[schemas.Model],
    "tuning_job.metrics": schemas.JobMetrics,
    None: schemas.Problem,
}
REQUESTS = {
    "/tuning-jobs": schemas.TuningJobCreate,
    "/estimates": schemas.EstimateCreate,
    "/videos": schemas.VideoCreate,
    "/uploads": schemas.UploadCreate,
    "/aliases": schemas.AliasSet,
    "/models/red-ball ": schemas.ModelUpdate,
}


def answers() -> list[dict[str, Any]]:
    """The literal JSON answers that are given whole."""
    bodies = [block.partition("\n\n")[2] for block in BLOCKS if block.startswith("HTTP/1.1")]
    return [json.loads(body) for body in bodies if body.startswith("{") and ", …" not in body]


@pytest.mark.parametrize("answer", answers(), ids=lambda answer: answer.get("object", answer.get("code")))
def test_a_literal_answer_is_one_of_the_schemas(answer: dict[str, Any]) -> None:
    schema = schemas.Bases if "choices" in answer else ANSWERS[answer.get("object")]
    parsed = schema.model_validate_json(json.dumps(answer))
    fields = {*schema.model_fields, *schema.model_computed_fields}
    assert set(answer) <= fields
    if schema is not schemas.Problem:
        assert set(answer) == fields, "an example shows every field"
        assert parsed.model_dump(mode="json") == answer


def test_the_literal_requests_are_accepted_by_the_schemas() -> None:
    taken = [block for block, answer in pairwise(BLOCKS) if not re.match(r"HTTP/1.1 [45]", answer)]
    posted = [block for block in taken if block.startswith(("POST", "PUT")) and "application/json\n" in block]
    bodies = [re.search(r"^\{.*?\}$", block, re.M | re.S) for block in posted]
    for block, body in zip(posted, bodies, strict=True):
        if body is not None:
            path = block.split()[1]
            [schema] = {schema for part, schema in REQUESTS.items() if part in path}
            schema.model_validate_json(body[0])
    assert sum(body is not None for body in bodies) >= 6


@pytest.mark.parametrize(
    "enum", [schemas.FailureCode, schemas.JobStatus, schemas.JobPhase, schemas.WaitsFor, schemas.VideoStatus]
)
def test_every_member_of_every_enumeration_is_named(enum: Any) -> None:
    assert [member for member in enum if f"`{member}`" not in TEXT] == []


def test_every_link_within_the_page_leads_somewhere() -> None:
    heads = re.findall(r"^#+ (.*)$", TEXT, re.M)
    anchors = {re.sub(r"[^a-z0-9 -]", "", head.lower()).replace(" ", "-") for head in heads}
    assert set(re.findall(r"\]\(#([^)]*)\)", TEXT)) <= anchors
