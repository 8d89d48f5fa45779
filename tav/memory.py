"""Memory settings of tuning: what one job trades of its speed for room on the device."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from tav.config import Config

Precision = Literal["fp32", "bf16", "fp16"]


class MemorySetting(Config):
    """One way to lay a tuning job out in memory."""

    zero_stage: Literal[1, 2, 3] = 1
    """DeepSpeed ZeRO: over the ranks, 1 shards optimizer states, 2 gradients too, 3 all parameters too."""
    offload_optimizer: bool = False
    """Master weights and AdamW's moments live in host memory, where the update is computed."""
    offload_params: bool = False
    """Parameters live in host memory and come to the device layer by layer; needs stage 3."""
    gradient_checkpointing: bool = False
    """Activations inside a block are computed again in the backward pass instead of kept."""
    precision: Precision | None = None
    """Of the network's arithmetic; None takes the service's (by default bf16 on CUDA, fp32 on a CPU). Masters are fp32."""

    @model_validator(mode="after")
    def _offload_needs_stage_3(self) -> MemorySetting:
        if self.offload_params and self.zero_stage != 3:
            raise ValueError("offload_params needs zero_stage 3: lower stages keep every parameter on the device")
        return self

    def engine(self) -> MemorySetting:
        """Return what an engine is bound to: checkpointing is switched per job, the rest is not."""
        return self.model_copy(update={"gradient_checkpointing": False})

    def describe(self) -> str:
        """Describe the setting for people, e.g. `ZeRO 1, bf16, checkpointing, optimizer on the host`."""
        words = [f"ZeRO {self.zero_stage}", self.precision or ""]
        words += ["checkpointing"] if self.gradient_checkpointing else []
        words += ["optimizer on the host"] if self.offload_optimizer else []
        words += ["parameters on the host"] if self.offload_params else []
        return ", ".join(word for word in words if word)


def ladder(
    precision: Precision,
    zero_stage: Literal[1, 2, 3] = 1,
    gradient_checkpointing: bool | None = None,
    own_memory: bool = True,
) -> list[MemorySetting]:
    """List the settings that `auto` chooses among, the fastest first, each leaner than the one before.

    Precision stays as it is, because it changes results. Checkpointing computes every forward pass once more; offloading
    the optimizer costs a transfer and an update on the host each step; offloading parameters a transfer of the whole network
    in each pass.

    Args:
        precision: of all of them.
        zero_stage: of all but the leanest, which needs 3.
        gradient_checkpointing: True or False keeps only such settings.
        own_memory: of the device, beside the host's. A CPU has none, and gains nothing by offloading.
    """
    rungs = [
        MemorySetting(zero_stage=zero_stage, precision=precision),
        MemorySetting(zero_stage=zero_stage, precision=precision, offload_optimizer=True),
        MemorySetting(zero_stage=zero_stage, precision=precision, gradient_checkpointing=True),
        MemorySetting(zero_stage=zero_stage, precision=precision, gradient_checkpointing=True, offload_optimizer=True),
        MemorySetting(
            zero_stage=3, precision=precision, gradient_checkpointing=True, offload_optimizer=True, offload_params=True
        ),
    ]
    if not own_memory:
        rungs = [rung for rung in rungs if not rung.offload_optimizer]
    if gradient_checkpointing is not None:
        rungs = [rung for rung in rungs if rung.gradient_checkpointing is gradient_checkpointing]
    return rungs
