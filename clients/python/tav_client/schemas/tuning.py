"""How a clip is tuned: the parameters of a job, and its memory setting."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field, model_validator

from tav_client.schemas.common import Accepted, Request, Response

Precision = Literal["fp32", "bf16", "fp16"]
AttentionMode = Literal["sparse_causal", "causal", "full", "frame"]
GroupNormMode = Literal["video", "frame"]


class _Memory(BaseModel):
    zero_stage: Literal[1, 2, 3] = Field(
        1, description="DeepSpeed ZeRO: over the ranks, 1 shards optimizer states, 2 gradients too, 3 all parameters too."
    )
    offload_optimizer: bool = Field(False, description="Keep master weights and AdamW's moments in host memory.")
    offload_params: bool = Field(False, description="Keep parameters in host memory; needs `zero_stage` 3.")
    gradient_checkpointing: bool = Field(False, description="Recompute activations to save memory.")
    precision: Precision | None = Field(None, description="Of the network's arithmetic; left out, the service's own.")


class MemorySetting(Request, _Memory):
    """How a tuning job is laid out in memory: an explicit setting is obeyed, and fails where it does not fit."""

    @model_validator(mode="after")
    def _offload_needs_stage_3(self) -> MemorySetting:
        if self.offload_params and self.zero_stage != 3:
            raise ValueError("offload_params needs zero_stage 3: lower stages keep every parameter on the device")
        return self


class JobMemory(Response, _Memory):
    """A memory setting as a job was asked for or worked in."""


class _Tuning(BaseModel):
    num_frames: int | None = Field(None, ge=2, le=512, description="Frames taken from the clip.")
    size: tuple[int, int] | None = Field(None, description="`[width, height]` in pixels, multiples of 8.")
    frame_start: int = Field(0, ge=0, description="First source frame used.")
    frame_stride: int | None = Field(
        None, ge=1, description="Take every n-th source frame; left out, frames are spread evenly over the clip."
    )
    steps: int | None = Field(None, ge=1, le=100_000, description="Optimizer steps.")
    learning_rate: float | None = Field(None, gt=0, le=1, description="AdamW's constant rate.")
    seed: int = Field(0, ge=0, lt=2**63, description="Everything random is drawn from it.")
    attention: AttentionMode | None = Field(None, description="ST-Attn mode.")
    group_norm: GroupNormMode | None = Field(None, description="ResNet GroupNorm over the video or per frame.")
    gradient_checkpointing: bool | None = Field(
        None, description="Recompute activations to save memory; with `memory` left to `auto`, settle this much of it."
    )


class TuningParams(Request, _Tuning):
    """How to tune. Every field may be left out."""

    memory: Literal["auto"] | MemorySetting = Field(
        "auto", description="`auto` takes the fastest setting that fits, and a leaner one after an out of memory."
    )

    @model_validator(mode="after")
    def _one_word_on_checkpointing(self) -> TuningParams:
        if self.memory != "auto" and self.gradient_checkpointing not in (None, self.memory.gradient_checkpointing):
            raise ValueError("gradient_checkpointing and memory.gradient_checkpointing contradict each other: give one of them")
        return self


class JobParams(Accepted, Response, _Tuning):
    """How a job is tuned, as it was asked for; a newer service may say more."""

    memory: Literal["auto"] | JobMemory = "auto"
