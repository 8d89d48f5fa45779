"""The delta: the tuned tensors of one job and what they were made with. Stored as one safetensors file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from tav.base import Base
from tav.bases.names import is_same_base
from tav.clip import CaptionSource, Clip
from tav.config import AttentionMode, GroupNormMode, TuneConfig
from tav.errors import BaseMismatch, CorruptVersion
from tav.inflation import VideoUNet, is_tuned
from tav.networks import misfit_of

HEADER_KEY = "tav"  # of the JSON record in the safetensors header


class Origin(BaseModel):
    """What a delta or inverted latents were made with."""

    base: str
    fingerprint: str
    caption: str
    caption_source: CaptionSource = "given"
    num_frames: int
    size: tuple[int, int]
    """`(width, height)` in pixels."""
    fps: float

    @classmethod
    def of(cls, base: Base, clip: Clip) -> Origin:
        """Record the work on `clip` with `base`."""
        return cls(
            base=base.name,
            fingerprint=base.fingerprint,
            caption=clip.caption,
            caption_source=clip.caption_source,
            num_frames=len(clip.frames),
            size=clip.size,
            fps=clip.fps,
        )

    def check(self, base: Base) -> None:
        """Refuse another base.

        Raises:
            BaseMismatch: names both bases.
        """
        if not is_same_base(self.fingerprint, base.fingerprint):
            raise BaseMismatch(
                f"made with base {self.base!r} ({self.fingerprint[:12]}), not with {base.name!r} ({base.fingerprint[:12]}): "
                f"load {self.base!r} to use it"
            )


class DeltaMeta(BaseModel):
    """The record in a delta's header."""

    origin: Origin
    attention: AttentionMode
    group_norm: GroupNormMode
    tune: TuneConfig | None
    """None: tuned elsewhere, by settings that were not handed on."""


@dataclass
class Delta:
    """Named tuned tensors, e.g. `….transformer_blocks.0.attn1.to_q.weight`."""

    tensors: dict[str, Tensor]
    meta: DeltaMeta

    @classmethod
    def extract(cls, net: VideoUNet, meta: DeltaMeta, dtype: torch.dtype = torch.float16) -> Delta:
        """Copy the tuned tensors out of a network, to the CPU."""
        tensors = {n: p.detach().to("cpu", dtype, copy=True) for n, p in net.named_parameters() if is_tuned(n)}
        return cls(tensors, meta)

    def apply(self, net: VideoUNet) -> None:
        """Swap this delta into a network: a copy into its existing tensors, and its attention and norm modes.

        Raises:
            CorruptVersion: names or shapes are not this network's.
        """
        targets = {n: p for n, p in net.named_parameters() if is_tuned(n)}
        _check_fit(self.tensors, targets)
        with torch.no_grad():
            for name, target in targets.items():
                target.copy_(self.tensors[name], non_blocking=True)
        net.context.attention, net.context.group_norm = self.meta.attention, self.meta.group_norm

    def save(self, path: str | Path) -> None:
        """Write a safetensors file; loading it gives the same bits."""
        write_tensors(self.tensors, path, self.meta)

    @classmethod
    def load(cls, path: str | Path) -> Delta:
        """Read a file that `save` wrote.

        Raises:
            CorruptVersion: incomplete, or not a delta.
        """
        tensors, record = read_tensors(path)
        try:
            return cls(tensors, DeltaMeta.model_validate_json(record))
        except ValidationError as error:
            raise CorruptVersion(f"{Path(path).name} is not a delta: its header lacks what it was made with") from error


def write_tensors(tensors: dict[str, Tensor], path: str | Path, record: BaseModel) -> None:
    """Write a safetensors file with our JSON record in its header.

    Raises:
        OSError: a full disk, say; safetensors' own writer raises an error of its own that does not tell which.
    """
    Path(path).write_bytes(save(tensors, metadata={HEADER_KEY: record.model_dump_json()}))


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], str]:
    """Read all tensors of a safetensors file and our JSON record in its header.

    Raises:
        CorruptVersion: incomplete or not safetensors.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, (file.metadata() or {}).get(HEADER_KEY, "")  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CorruptVersion(
            f"{Path(path).name} cannot be read as safetensors ({error}): fetch or register it again"
        ) from error


def _check_fit(tensors: dict[str, Tensor], targets: dict[str, torch.nn.Parameter]) -> None:
    misfit = misfit_of(tensors, targets)
    if names := misfit.missing + misfit.unknown:
        raise CorruptVersion(f"the delta's tensors are not this network's, e.g. {min(names)}: it belongs to another base")
    for name in misfit.reshaped:
        raise CorruptVersion(
            f"{name} is {list(tensors[name].shape)} in the delta, {list(targets[name].shape)} in the network: "
            "it belongs to another base"
        )
