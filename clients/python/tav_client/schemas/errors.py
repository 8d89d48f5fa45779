"""Why a job or a video failed, and the body of an error response."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

from pydantic import Field, computed_field

from tav_client.schemas.common import Response


class FailureCode(StrEnum):
    """Why a tuning job or a video failed."""

    invalid_clip = "invalid_clip"
    """The clip cannot be decoded or does not fit the configuration. Not retried."""
    invalid_config = "invalid_config"
    """The parameters contradict each other or the base. Not retried."""
    base_unavailable = "base_unavailable"
    """The base cannot be loaded: no such folder or hub id, or its files are incomplete."""
    base_mismatch = "base_mismatch"
    """The delta was made with another base than the one in use."""
    out_of_memory = "out_of_memory"
    """Frames × size do not fit the device, even with the leanest memory setting."""
    nan_loss = "nan_loss"
    """The loss stopped being a finite number: lower the learning rate or use a wider precision."""
    no_resources = "no_resources"
    """Nothing that could work on it was free, or could be started, before its queue deadline."""
    deadline_exceeded = "deadline_exceeded"
    """It waited, or ran, longer than its queue or run deadline allows."""
    worker_lost = "worker_lost"
    """The process or node that worked on it died in every attempt."""
    storage_unavailable = "storage_unavailable"
    """S3 or MLflow did not answer in every attempt."""
    disk_full = "disk_full"
    """The worker had no room for its scratch files, in every attempt."""
    corrupt_version = "corrupt_version"
    """An object of the model version is missing or its digest differs from the one registered."""
    cancelled = "cancelled"
    """Whoever waited for the video went away. Tuning jobs have a status for it instead."""
    internal = "internal"
    """A defect of ours; the traceback is an artifact of the run."""


Category = Literal["user", "server"]
"""Whose fault an error is: `user`, another request would do; `server`, the operator is to look."""

_OF_USERS = {
    FailureCode.invalid_clip,
    FailureCode.invalid_config,
    FailureCode.base_mismatch,
    FailureCode.out_of_memory,
    FailureCode.nan_loss,
    FailureCode.deadline_exceeded,
    FailureCode.cancelled,
}


class Failure(Response):
    """A typed reason and one readable sentence."""

    code: FailureCode
    message: str

    @computed_field(description="`user`: another request would do. `server`: the operator is to look.")  # type: ignore[prop-decorator]
    @property
    def category(self) -> Category:
        """Whose fault it is."""
        return "user" if self.code in _OF_USERS else "server"


class Problem(Response):
    """Every error's body, `application/problem+json` (RFC 9457)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str = Field(description="A sentence that says what to do.")
    code: str = Field(description="Stable and machine-readable, e.g. `model_not_found`.")
    errors: list[dict[str, Any]] | None = Field(None, description="One entry per invalid field.")
    error: dict[str, Any] | None = Field(None, description="OpenAI's error object, on video calls.")

    @computed_field(description="`user`: another request would do. `server`: the operator is to look.")  # type: ignore[prop-decorator]
    @property
    def category(self) -> Category:
        """Whose fault it is."""
        return "user" if self.status < 500 else "server"
