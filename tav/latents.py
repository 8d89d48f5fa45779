"""Inverted latents: where sampling starts, so that the video keeps the clip's motion."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from torch import Tensor

from tav.config import InvertConfig
from tav.ddim import DDIM
from tav.delta import Origin, read_tensors, write_tensors
from tav.errors import CorruptVersion


class LatentsMeta(BaseModel):
    """The record in the file's header."""

    origin: Origin
    invert: InvertConfig


@dataclass
class Latents:
    """`[1, 4, F, h, w]`, fp32 on the CPU, and what they were made with."""

    tensor: Tensor
    meta: LatentsMeta

    def inverted_to(self, scheduler_config: dict[str, Any]) -> int:
        """Return the timestep at which their inversion ended, whose noise they hold."""
        return DDIM(scheduler_config, self.meta.invert.num_inference_steps).timesteps[0]

    def save(self, path: str | Path) -> None:
        """Write a safetensors file; loading it gives the same bits."""
        write_tensors({"latents": self.tensor.contiguous()}, path, self.meta)

    @classmethod
    def load(cls, path: str | Path) -> Latents:
        """Read a file that `save` wrote.

        Raises:
            CorruptVersion: incomplete, or not inverted latents.
        """
        tensors, record = read_tensors(path)
        try:
            return cls(tensors["latents"], LatentsMeta.model_validate_json(record))
        except (KeyError, ValidationError) as error:
            raise CorruptVersion(f"{Path(path).name} does not hold inverted latents: fetch or register it again") from error
