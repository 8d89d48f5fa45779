"""Is a checkpoint tuned on this base? What both hold is compared, tensor by tensor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from transformers import CLIPTextModel

from tav.base import Base
from tav.errors import BaseMismatch, InvalidCheckpoint
from tav.inflation import inflate, is_tuned
from tav.interop.reference import WEIGHTS, Checkpoint

_HALF = torch.finfo(torch.float16)


def compare(checkpoint: Checkpoint, base: Base) -> dict[str, float]:
    """The largest difference of a frozen tensor from the base's, by part of the base.

    Public folders hold the UNet in fp32 and the rest in fp16: what half precision's rounding explains is let through.

    Raises:
        BaseMismatch: another base, by its tensors' names, shapes or values.
        InvalidCheckpoint: more was tuned than a delta holds.
    """
    net = inflate(base.unet).state_dict()
    given = checkpoint.tensors
    if odd := given.keys() ^ net.keys():
        where = "the checkpoint" if min(odd) in given else f"base {base.name!r}"
        raise BaseMismatch(f"only {where} has {min(odd)}: {_advice(checkpoint)}")
    for key in ("attention_head_dim", "norm_num_groups"):  # change what is computed, but no tensor's shape
        theirs, ours = checkpoint.config.get(key), base.unet.config[key]
        if theirs is not None and theirs != ours:
            raise BaseMismatch(f"{key} is {theirs} in the checkpoint, {ours} in base {base.name!r}: {_advice(checkpoint)}")
    for name in given:
        if ".norm_temp." in name and not torch.equal(given[name].float(), net[name].float()):
            raise InvalidCheckpoint(f"{name} was tuned: a delta holds query projections and temporal attention alone")
        if given[name].shape != net[name].shape:
            shapes = f"{list(given[name].shape)} in the checkpoint, {list(net[name].shape)} in base {base.name!r}"
            raise BaseMismatch(f"{name} is {shapes}: {_advice(checkpoint)}")
    frozen = [name for name in given if not is_tuned(name)]
    deviation = {"unet": _deviation(given, net, frozen, checkpoint, base)}
    if checkpoint.is_pipeline:
        for part, theirs, ours in (
            ("vae", read_vae(checkpoint.folder), base.vae),
            ("text_encoder", read_text_encoder(checkpoint.folder), base.text_encoder),
        ):
            parameters = dict(ours.named_parameters())
            state = dict(theirs.named_parameters())
            if state.keys() != parameters.keys() or any(state[n].shape != p.shape for n, p in parameters.items()):
                raise BaseMismatch(f"its {part} is of another kind than that of base {base.name!r}: {_advice(checkpoint)}")
            deviation[part] = _deviation(state, parameters, parameters, checkpoint, base)
    return deviation


@torch.no_grad()
def _deviation(
    given: Mapping[str, Tensor], ours: Mapping[str, Tensor], names: Iterable[str], checkpoint: Checkpoint, base: Base
) -> float:
    largest = 0.0
    for name in names:
        theirs, mine = given[name].float(), ours[name].to("cpu", torch.float32)
        difference = (theirs - mine).abs()
        epsilon = max(_HALF.eps, torch.finfo(given[name].dtype).eps, torch.finfo(ours[name].dtype).eps)
        if (difference > epsilon * mine.abs() + _HALF.smallest_normal * _HALF.eps).any():
            raise BaseMismatch(
                f"{name} differs from that of base {base.name!r} by up to {difference.max():.2g}: {_advice(checkpoint)}"
            )
        largest = max(largest, float(difference.max())) if difference.numel() else largest
    return largest


def _advice(checkpoint: Checkpoint) -> str:
    named = checkpoint.training.get("pretrained_model_path")
    said = f" (its config.yaml names {named!r})" if named else ""
    alone = "" if not checkpoint.is_pipeline else ", or leave the base out to take the one in the folder"
    return f"name the base that the checkpoint was tuned on{said}{alone}"


def read_vae(folder: Path) -> AutoencoderKL:
    """A pipeline folder's, also of diffusers' older names.

    Raises:
        InvalidCheckpoint: missing or damaged.
    """
    try:
        safe = (folder / "vae" / WEIGHTS[0]).is_file()
        return AutoencoderKL.from_pretrained(folder / "vae", local_files_only=True, use_safetensors=safe)
    except (OSError, ValueError) as error:
        raise InvalidCheckpoint(f"{folder / 'vae'} cannot be read ({error}): fetch it again") from error


def read_text_encoder(folder: Path) -> CLIPTextModel:
    """A pipeline folder's.

    Raises:
        InvalidCheckpoint: missing or damaged.
    """
    try:
        return CLIPTextModel.from_pretrained(folder / "text_encoder", local_files_only=True)
    except (OSError, ValueError) as error:
        raise InvalidCheckpoint(f"{folder / 'text_encoder'} cannot be read ({error}): fetch it again") from error
