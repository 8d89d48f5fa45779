"""One example of each body for the OpenAPI description, which /docs fills in."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from tav_client import schemas

_JOB, _VIDEO, _AT = "3f0c9a4be9a94c7ea2c1d5a9a4f0e2d7", "c41d7e0f5b1a4a0f9d3c2b7e6a5f4d3c", 1795392000.0
_CAPTION, _PROMPT = "a red ball rolls over sand", "a blue ball rolls over sand"

_REQUESTS: list[BaseModel] = [
    schemas.TuningJobCreate(
        caption=_CAPTION,
        clip_uri="s3://clips/ball.mp4",
        model="red-ball",
        params=schemas.TuningParams(steps=150, num_frames=8),
        validation_prompts=[_PROMPT],
    ),
    schemas.EstimateCreate(params=schemas.TuningParams(num_frames=32, size=(512, 512)), device="A100-80G"),
    schemas.UploadCreate(bytes=18734211, content_type="video/mp4"),
    schemas.AliasSet(version=1),
    schemas.VideoCreate(model="red-ball", prompt=_PROMPT, num_inference_steps=50),
]
_RESPONSES: list[BaseModel] = [
    schemas.TuningJob(
        id=_JOB,
        status=schemas.JobStatus.running,
        phase=schemas.JobPhase.tuning,
        step=61,
        total_steps=150,
        progress=0.31,
        loss=0.143,
        eta_seconds=52.0,
        attempt=1,
        created_at=_AT,
        started_at=_AT + 3,
        caption=_CAPTION,
        clip=schemas.ClipInfo(uri="s3://clips/ball.mp4", sha256="9b1f" * 16, width=256, height=256, num_frames=24, fps=12.0),
        base="offline",
        model="red-ball",
        params=schemas.JobParams(steps=150, num_frames=8),
        validation_prompts=[_PROMPT],
        request_id="7d0c1a5e",
    ),
    schemas.Batch(
        id="davis-42", total=42, counts={schemas.JobStatus.queued: 30, schemas.JobStatus.running: 12}, finished=False
    ),
    schemas.Model(name="red-ball", created_at=_AT + 81, updated_at=_AT + 81, latest_version=1, aliases={"production": 1}),
    schemas.Video.model_validate(
        {
            "id": _VIDEO,
            "created_at": _AT + 100,
            "status": "in_progress",
            "progress": 40,
            "step": 20,
            "total_steps": 50,
            "model": "red-ball",
            "model_version": "red-ball/1",
            "prompt": _PROMPT,
            "request": {"model": "red-ball", "prompt": _PROMPT, "num_inference_steps": 50},
        }
    ),
    schemas.Problem(
        title="Not Found",
        status=404,
        detail=f"There is no job '{_JOB}'. List the tuning jobs to see which there are.",
        code="job_not_found",
    ),
]

EXAMPLES: dict[str, dict[str, Any]] = {
    **{type(body).__name__: body.model_dump(mode="json", exclude_unset=True) for body in _REQUESTS},
    **{type(body).__name__: body.model_dump(mode="json", exclude_none=True) for body in _RESPONSES},
}
"""By the schema's name."""
