"""A base published as one `.safetensors` file in the original latent-diffusion layout, as on many model sites.

It holds weights alone; configs and vocabulary come from a diffusers folder of the same kind. diffusers' own converters know
the names; loading is strict, where its `from_single_file` leaves what a file lacks at random values.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
    is_clip_model,
    is_open_clip_model,
)
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from tav.errors import BaseUnavailable


def read_single_file(
    file: Path, folder: Path, dtype: torch.dtype, vae_dtype: torch.dtype
) -> tuple[UNet2DConditionModel, AutoencoderKL, CLIPTextModel]:
    """The models in `file`, built by the configs in `folder`.

    Raises:
        BaseUnavailable: unreadable, incomplete, or of another kind than the configs.
    """
    try:
        tensors = load_file(file)
    except (SafetensorError, OSError) as error:
        raise BaseUnavailable(f"base {str(file)!r} cannot be read as safetensors ({error}): fetch it again") from error
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(folder, subfolder="unet"))
        vae = AutoencoderKL.from_config(AutoencoderKL.load_config(folder, subfolder="vae"))
    text_encoder = CLIPTextModel(CLIPTextConfig.from_pretrained(folder, subfolder="text_encoder"))
    named = f"base {str(file)!r} does not fit the configs in {folder}"
    _fill(unet, convert_ldm_unet_checkpoint(tensors, unet.config), dtype, f"{named}: of a UNet")
    _fill(vae, convert_ldm_vae_checkpoint(tensors, vae.config), vae_dtype, f"{named}: of a VAE")
    _fill(text_encoder, _text(text_encoder, tensors), dtype, f"{named}: of a text encoder")
    return unet, vae, text_encoder


def _text(model: CLIPTextModel, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    if is_clip_model(tensors):
        found = convert_ldm_clip_checkpoint(tensors)
    elif is_open_clip_model(tensors):
        found = convert_open_clip_checkpoint(model, tensors)
    else:
        found = {}
    known = model.state_dict().keys()
    flat = {name.removeprefix("text_model."): tensor for name, tensor in found.items()}
    return {name: tensor for name, tensor in flat.items() if name in known}  # not OpenCLIP's last layer, nor position ids


def _fill(model: nn.Module, tensors: Mapping[str, Tensor], dtype: torch.dtype, of: str) -> None:
    wanted = model.state_dict()
    if missing := sorted(wanted.keys() - tensors.keys()):
        raise BaseUnavailable(
            f"{of} it lacks {len(missing)} of {len(wanted)} tensors, e.g. {missing[0]}: say config=, of its kind"
        )
    if unknown := sorted(tensors.keys() - wanted.keys()):
        raise BaseUnavailable(f"{of} it has {len(unknown)} tensors too many, e.g. {unknown[0]}: say config=, of its kind")
    for name, tensor in tensors.items():
        if tensor.shape != wanted[name].shape:
            raise BaseUnavailable(
                f"{of} {name} is {list(tensor.shape)} in the file, {list(wanted[name].shape)} by the config: "
                "say config=, of its kind"
            )
    model.load_state_dict({name: tensor.to(dtype) for name, tensor in tensors.items()}, assign=True)
