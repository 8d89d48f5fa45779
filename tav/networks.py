"""A base's three networks: which kinds there are, built by a diffusers folder's configs, filled with named tensors.

Filling is strict, where the libraries' own loaders leave what a file lacks at random values.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from tav.bases.configs import read_config


class Unfit(ValueError):
    """Tensors that are not a network's, or a config that is of another kind. The text goes on after "… ": it is a clause."""


class Networks(NamedTuple):
    """On the meta device, until they are filled."""

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoder: CLIPTextModel


def build(folder: Path) -> Networks:
    """Build the networks that the configs in a diffusers folder describe.

    Raises:
        Unfit: not a Stable Diffusion 1.x or 2.x text-to-image model's.
        OSError, ValueError: a config that is missing or damaged.
    """
    unet, vae, text = (read_config(folder / part / "config.json") for part in Networks._fields)
    if wrong := _odd_class(unet, vae, text) or odd_unet(unet) or _odd_together(unet, vae, text):
        raise Unfit(wrong)
    return Networks(
        _on_meta(UNet2DConditionModel, unet), _on_meta(AutoencoderKL, vae), build_text_encoder(folder / "text_encoder")
    )


def build_vae(folder: Path) -> AutoencoderKL:
    """Build the VAE that a folder's config describes, on the meta device."""
    vae: AutoencoderKL = _on_meta(AutoencoderKL, read_config(folder / "config.json"))
    return vae


def build_text_encoder(folder: Path) -> CLIPTextModel:
    """Build the text encoder that a folder's config describes, on the meta device."""
    config = CLIPTextConfig.from_pretrained(folder)
    with torch.device("meta"):
        model = CLIPTextModel(config)
    model.embeddings.position_ids = torch.arange(config.max_position_embeddings)[None]  # computed, in no file
    return model


def _on_meta(kind: Any, config: dict[str, Any]) -> Any:
    with torch.device("meta"):
        return kind.from_config(config)


class Misfit(NamedTuple):
    """How named tensors differ from a network's in names and shapes; true where they do."""

    missing: list[str]
    """Names that only the network has, sorted."""
    unknown: list[str]
    """Names that only the tensors have, sorted."""
    reshaped: list[str]
    """Names of both, in the tensors' order, whose shapes differ."""

    def __bool__(self) -> bool:
        return any(self)


def misfit_of(tensors: Mapping[str, Tensor], network: Mapping[str, Tensor]) -> Misfit:
    """Compare tensors with a network's by name and shape."""
    return Misfit(
        sorted(network.keys() - tensors.keys()),
        sorted(tensors.keys() - network.keys()),
        [name for name, tensor in tensors.items() if name in network and tensor.shape != network[name].shape],
    )


@torch.no_grad()
def fill(model: nn.Module, tensors: Mapping[str, Tensor], dtype: torch.dtype | None = None) -> None:
    """Make `tensors` the parameters of `model`, in `dtype` or their own; all of them, and no others.

    Raises:
        Unfit: names or shapes are not the model's.
    """
    state = model.state_dict()
    misfit = misfit_of(tensors, state)
    if misfit.missing:
        raise Unfit(f"lacks {len(misfit.missing)} of {len(state)} tensors, e.g. {misfit.missing[0]}")
    if misfit.unknown:
        raise Unfit(f"has {len(misfit.unknown)} tensors too many, e.g. {misfit.unknown[0]}")
    for name in misfit.reshaped:
        raise Unfit(f"holds {name} as {list(tensors[name].shape)}, where its config says {list(state[name].shape)}")
    model.load_state_dict({name: tensor.to(dtype or tensor.dtype) for name, tensor in tensors.items()}, assign=True)


# -- names of other times

_OLD = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
"""Layers of a VAE's attention: today's names and those of diffusers before 0.15, under which most bases are published."""
_NEW = {old: new for new, old in _OLD.items()}
_PREFIX = "text_model."


def vae_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a VAE's tensors to today's names."""
    old = re.compile(rf"(?<=\.attentions\.\d\.)({'|'.join(_NEW)})(?=\.)")
    return {old.sub(lambda match: _NEW[match[0]], name): tensor for name, tensor in tensors.items()}


def old_vae_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a VAE's tensors to those of diffusers before 0.15."""
    new = re.compile(rf"(?<=\.attentions\.\d\.)({'|'.join(map(re.escape, _OLD))})(?=\.)")
    return {new.sub(lambda match: _OLD[match[0]], name): tensor for name, tensor in tensors.items()}


def text_tensors(model: CLIPTextModel, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a text encoder's tensors to today's names. What is beyond `model` is left out: position ids, a projection, layers
    that its config skips."""
    known = model.state_dict().keys()
    flat = {name.removeprefix(_PREFIX): tensor for name, tensor in tensors.items()}
    return {name: tensor for name, tensor in flat.items() if name in known}


def old_text_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a text encoder's tensors to those of transformers before 5."""
    return {_PREFIX + name: tensor for name, tensor in tensors.items()}


# -- kinds

_CLASSES = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL"}
_TEXT_ENCODERS = ("clip_text_model", "clip")

DEFAULTS = {
    name: parameter.default
    for name, parameter in inspect.signature(UNet2DConditionModel.__init__).parameters.items()
    if name != "self"
}
"""Of a UNet's config."""
_FREE = {
    *("sample_size", "in_channels", "out_channels", "block_out_channels", "layers_per_block", "downsample_padding"),
    *("attention_head_dim", "cross_attention_dim", "transformer_layers_per_block", "reverse_transformer_layers_per_block"),
    *("norm_num_groups", "norm_eps", "act_fn", "dropout", "mid_block_scale_factor", "center_input_sample", "freq_shift"),
    *("flip_sin_to_cos", "use_linear_projection", "upcast_attention", "conv_in_kernel", "conv_out_kernel"),
    *("time_embedding_type", "time_embedding_dim", "time_embedding_act_fn", "timestep_post_act"),
    *("resnet_time_scale_shift", "resnet_skip_time_act", "resnet_out_scale_factor"),
    *(
        "addition_time_embed_dim",
        "addition_embed_type_num_heads",
        "projection_class_embeddings_input_dim",
    ),  # of what is not there
}
"""Of a UNet's config, what may differ from Stable Diffusion 1.x, which diffusers' defaults describe: sizes, and what happens
inside layers that are used as they are."""
_BLOCKS = {
    "down_block_types": {"CrossAttnDownBlock2D", "DownBlock2D"},
    "mid_block_type": {"UNetMidBlock2DCrossAttn"},
    "up_block_types": {"CrossAttnUpBlock2D", "UpBlock2D"},
}
_KNOWN = {
    "addition_embed_type": "wants more than a prompt, as SDXL's does",
    "class_embed_type": "wants more than a prompt, a class",
    "num_class_embeds": "wants more than a prompt, a class or a noise level",
    "encoder_hid_dim": "projects its text first, as DeepFloyd's and Kandinsky's do",
    "encoder_hid_dim_type": "projects its text first, as Kandinsky's does",
    "time_cond_proj_dim": "has a guidance embedding, as a latent consistency model's (LCM) does",
    "attention_type": "has gated attention, as GLIGEN's does",
    "dual_cross_attention": "attends to two texts at a time",
    "only_cross_attention": "has no self-attention",
    "mid_block_only_cross_attention": "has no self-attention in its middle",
    "cross_attention_norm": "normalises its text in every layer",
}


def odd_unet(config: Mapping[str, Any]) -> str | None:
    """Say what keeps a UNet of this config from being inflated, as a clause that begins with "its UNet"; None: nothing."""
    for key, known in _BLOCKS.items():
        value = config.get(key, DEFAULTS[key])
        if odd := {value} - known if isinstance(value, str | None) else {*value} - known:
            return f"its UNet has {key} of {odd.pop()!r}"
    for key, default in DEFAULTS.items():
        value = config.get(key, default)
        values = set(value) if isinstance(value, list | tuple) else {value}  # some are also given block by block
        if key not in _FREE and key not in _BLOCKS and not values <= {default, None, False}:
            return f"its UNet {_KNOWN.get(key, 'is of another kind')} ({key} is {value!r})"
    return None


def _odd_class(unet: Mapping[str, Any], vae: Mapping[str, Any], text: Mapping[str, Any]) -> str | None:
    for part, config in (("unet", unet), ("vae", vae)):
        if (name := config.get("_class_name", _CLASSES[part])) != _CLASSES[part]:
            return f"its {part} is of class {name!r}, not {_CLASSES[part]!r}"
    if (kind := text.get("model_type", "clip")) not in _TEXT_ENCODERS:
        return f"its text encoder is of type {kind!r}, not CLIP's"
    return None


def _odd_together(unet: Mapping[str, Any], vae: Mapping[str, Any], text: Mapping[str, Any]) -> str | None:
    for key in ("shift_factor", "latents_mean", "latents_std"):
        if vae.get(key) is not None:
            return f"its VAE moves its latents ({key} is {vae[key]!r})"
    channels, latent_channels = unet.get("in_channels", 4), vae.get("latent_channels", 4)
    if not channels == unet.get("out_channels", 4) == latent_channels:
        return f"its UNet takes {channels} channels, its VAE gives {latent_channels}, as for inpainting"
    width, text_width = unet.get("cross_attention_dim", DEFAULTS["cross_attention_dim"]), _text_width(text)
    if width != text_width:
        return f"its UNet wants text of width {width}, its text encoder gives {text_width}"
    return None


def _text_width(text: Mapping[str, Any]) -> int:
    width: int = CLIPTextConfig.from_dict({**(text.get("text_config") or text), "model_type": "clip_text_model"}).hidden_size
    return width
