"""A base published as one `.safetensors` file in the original latent-diffusion layout, as on many model sites.

It holds weights alone; configs and vocabulary come from a diffusers folder of the same kind. diffusers' own converters know
the names.
"""

from __future__ import annotations

from collections.abc import Mapping

from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
    is_clip_model,
    is_open_clip_model,
)
from torch import Tensor

from tav.networks import Networks


def converted(networks: Networks, tensors: dict[str, Tensor]) -> dict[str, Mapping[str, Tensor]]:
    """Convert the file's tensors, by part, to the names of `networks`, which may need others."""
    return {
        "unet": convert_ldm_unet_checkpoint(tensors, networks.unet.config),
        "vae": convert_ldm_vae_checkpoint(tensors, networks.vae.config),
        "text_encoder": _text(networks, tensors),
    }


def _text(networks: Networks, tensors: dict[str, Tensor]) -> Mapping[str, Tensor]:
    if is_clip_model(tensors):
        converted: Mapping[str, Tensor] = convert_ldm_clip_checkpoint(tensors)
    elif is_open_clip_model(tensors):
        converted = convert_open_clip_checkpoint(networks.text_encoder, tensors)
    else:
        converted = {}
    return converted
