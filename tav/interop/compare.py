"""Is a checkpoint tuned on this base? What both hold is compared, tensor by tensor."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from transformers import CLIPTextModel

from tav.base import Base
from tav.errors import BaseMismatch, InvalidCheckpoint
from tav.inflation import inflate, is_tuned
from tav.interop.reference import TEXT_WEIGHTS, WEIGHTS, PublicCheckpoint, read_tensors
from tav.networks import Unfit, build_text_encoder, build_vae, fill, misfit_of, text_tensors, vae_tensors

_HALF = torch.finfo(torch.float16)


def compare(checkpoint: PublicCheckpoint, base: Base) -> dict[str, float]:
    """Return the largest difference of a frozen tensor from the base's, by part of the base.

    Public folders hold the UNet in fp32 and the rest in fp16: what half precision's rounding explains is let through.

    Raises:
        BaseMismatch: another base, by its tensors' names, shapes or values.
        InvalidCheckpoint: more was tuned than a delta holds.
    """
    net = inflate(base.unet).state_dict()
    tensors = checkpoint.tensors
    misfit = misfit_of(tensors, net)
    if names := misfit.missing + misfit.unknown:
        where = "the checkpoint" if min(names) in tensors else f"base {base.name!r}"
        raise BaseMismatch(f"only {where} has {min(names)}: {_advice(checkpoint)}")
    for key in ("attention_head_dim", "norm_num_groups"):  # change what is computed, but no tensor's shape
        theirs, ours = checkpoint.config.get(key), base.unet.config[key]
        if theirs is not None and theirs != ours:
            raise BaseMismatch(f"{key} is {theirs} in the checkpoint, {ours} in base {base.name!r}: {_advice(checkpoint)}")
    for name in misfit.reshaped:
        shapes = f"{list(tensors[name].shape)} in the checkpoint, {list(net[name].shape)} in base {base.name!r}"
        raise BaseMismatch(f"{name} is {shapes}: {_advice(checkpoint)}")
    for name in tensors:
        if ".norm_temp." in name and not torch.equal(tensors[name].float(), net[name].float()):
            raise InvalidCheckpoint(f"{name} was tuned: a delta holds query projections and temporal attention alone")
    frozen = [name for name in tensors if not is_tuned(name)]
    deviation = {"unet": _deviation(tensors, net, frozen, checkpoint, base)}
    if checkpoint.is_pipeline:
        for part, theirs, ours in (
            ("vae", read_vae(checkpoint.folder), base.vae),
            ("text_encoder", read_text_encoder(checkpoint.folder), base.text_encoder),
        ):
            parameters = dict(ours.named_parameters())
            state = dict(theirs.named_parameters())
            if misfit_of(state, parameters):
                raise BaseMismatch(f"its {part} is of another kind than that of base {base.name!r}: {_advice(checkpoint)}")
            deviation[part] = _deviation(state, parameters, parameters, checkpoint, base)
    return deviation


@torch.no_grad()
def _deviation(
    tensors: Mapping[str, Tensor],
    parameters: Mapping[str, Tensor],
    names: Iterable[str],
    checkpoint: PublicCheckpoint,
    base: Base,
) -> float:
    largest = 0.0
    for name in names:
        theirs, ours = tensors[name].float(), parameters[name].to("cpu", torch.float32)
        difference = (theirs - ours).abs()
        epsilon = max(_HALF.eps, torch.finfo(tensors[name].dtype).eps, torch.finfo(parameters[name].dtype).eps)
        if (difference > epsilon * ours.abs() + _HALF.smallest_normal * _HALF.eps).any():
            raise BaseMismatch(
                f"{name} differs from that of base {base.name!r} by up to {difference.max():.2g}: {_advice(checkpoint)}"
            )
        largest = max(largest, float(difference.max())) if difference.numel() else largest
    return largest


def _advice(checkpoint: PublicCheckpoint) -> str:
    named = checkpoint.training.get("pretrained_model_path")
    said = f" (its config.yaml names {named!r})" if named else ""
    alone = "" if not checkpoint.is_pipeline else ", or leave the base out to take the one in the folder"
    return f"name the base that the checkpoint was tuned on{said}{alone}"


def read_vae(folder: Path) -> AutoencoderKL:
    """Read a pipeline folder's VAE, also under diffusers' older names; in the dtype that it is stored in.

    Raises:
        InvalidCheckpoint: missing, damaged, or not all of it.
    """
    tensors = vae_tensors(_weights(folder / "vae", WEIGHTS))
    with _as_invalid_checkpoint(folder / "vae"):
        vae = build_vae(folder / "vae")
        fill(vae, tensors)
    return vae


def read_text_encoder(folder: Path) -> CLIPTextModel:
    """Read a pipeline folder's text encoder, also under transformers' older names; in the dtype that it is stored in.

    Raises:
        InvalidCheckpoint: missing, damaged, or not all of it.
    """
    tensors = _weights(folder / "text_encoder", TEXT_WEIGHTS)
    with _as_invalid_checkpoint(folder / "text_encoder"):
        text_encoder = build_text_encoder(folder / "text_encoder")
        fill(text_encoder, text_tensors(text_encoder, tensors))
    return text_encoder


def _weights(folder: Path, names: tuple[str, ...]) -> dict[str, Tensor]:
    weights = next((folder / name for name in names if (folder / name).is_file()), None)
    if weights is None:
        raise InvalidCheckpoint(f"{folder} holds no weights: one of {', '.join(names)} must be there")
    return read_tensors(weights)


@contextmanager
def _as_invalid_checkpoint(folder: Path) -> Iterator[None]:
    try:
        yield
    except Unfit as error:
        raise InvalidCheckpoint(f"{folder} {error}: fetch it again") from error
    except (OSError, ValueError) as error:
        raise InvalidCheckpoint(f"the config in {folder} cannot be read ({error}): fetch it again") from error
