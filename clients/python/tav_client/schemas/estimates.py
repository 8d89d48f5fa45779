"""What a job takes before it is submitted: memory and time in each memory setting."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tav_client.schemas.common import Request, Response
from tav_client.schemas.tuning import JobMemory, TuningParams


class PhaseEstimate(Response):
    """One phase of a job: tuning, inversion, or the sampling of its videos."""

    peak_memory_bytes: int
    seconds: float


class Estimate(Response):
    """Peak memory and time of a job in one memory setting on one device, predicted by a model fitted on measured runs."""

    memory: JobMemory = Field(description="The setting.")
    device: str
    device_memory_bytes: int
    peak_memory_bytes: int = Field(description="Of the device, the largest of the phases'.")
    host_memory_bytes: int = Field(description="What offloading keeps in host memory besides.")
    seconds: float = Field(description="Of all phases. Loading a base, transfers and waiting are not counted.")
    fits: bool = Field(description="Also if the peak is larger by `memory_error`.")
    phases: dict[str, PhaseEstimate] = Field(description="`tuning`, `inversion`, and `sampling` where there is something to.")
    memory_error: float | None = Field(
        description="The model's largest error on measured runs that it had not seen, as a share; null: no run was ever "
        "measured on such a device, and it is predicted from counts and data sheets alone."
    )
    time_error: float | None = Field(description="Likewise.")


class EstimateCreate(Request):
    """`POST /v1/estimates`: what a job would take."""

    base: str | None = Field(None, max_length=256, description="Base to tune on; left out, the service's own.")
    params: TuningParams = Field(default_factory=TuningParams)
    videos: int = Field(1, ge=0, le=8, description="Sampled after tuning.")
    gpus: int = Field(1, ge=1, le=64, description="GPUs that tune the clip together.")
    device: str | None = Field(
        None, max_length=64, description="A GPU type, such as `A100-80G`, or `cpu`; left out, what the service has."
    )


class Estimates(Response):
    """What a job would take in each memory setting that it would be tried in, and which it would begin with."""

    object: Literal["estimate"] = "estimate"
    num_frames: int
    size: tuple[int, int]
    steps: int
    videos: int
    gpus: int
    settings: list[Estimate]
    chosen: int = Field(description="Index of the fastest that fits; of the last, the leanest, if none does.")

    def _repr_html_(self) -> str:
        from tav_client._tables import estimates  # only notebooks need it

        return estimates(self)
