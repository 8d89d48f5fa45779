"""The methods and settings of `tav.eval` that jobs and videos can have. Others need the base itself and run locally."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tav.errors import InvalidConfig
from tav_client import schemas


@dataclass(frozen=True)
class ServiceMethod:
    """A method as fields of requests."""

    tuning: dict[str, Any] = field(default_factory=dict)
    """Fields of a job's `params`."""
    sampling: dict[str, Any] = field(default_factory=dict)
    """Fields of a video."""


METHODS = {
    "tuned": ServiceMethod(),
    "no_st_attention": ServiceMethod(tuning={"attention": "frame"}),
    "no_inversion": ServiceMethod(sampling={"use_inverted_latents": False}),
}
"""By the names of `tav.eval.methods`."""


def check_methods(names: Sequence[str]) -> None:
    """Raise `InvalidConfig` if the service does not offer one of the methods."""
    if unknown := set(names) - set(METHODS):
        raise InvalidConfig(f"the service does not offer {', '.join(sorted(unknown))}: run it with --local, or leave it out")


def request_fields(overrides: dict[str, Any]) -> ServiceMethod:
    """Return a run's settings as fields of requests: `tune.*` and `net.*` of a job's params, `sample.*` of a video.

    Raises:
        InvalidConfig: the service does not offer a setting.
    """
    fields = ServiceMethod()
    for name, value in overrides.items():
        part, _, key = name.partition(".")
        target, request = (fields.sampling, schemas.VideoCreate) if part == "sample" else (fields.tuning, schemas.TuningParams)
        if part not in ("tune", "net", "sample") or key not in request.model_fields:
            raise InvalidConfig(f"the service does not offer the setting {name}: run with --local, or leave it out")
        target[key] = value
    return fields
