"""The public implementation's folder (github.com/showlab/Tune-A-Video), read without running anything in it.

model_index.json                  of its `TuneAVideoPipeline`; a UNet's folder alone will do as well
unet/config.json                  the base's, its blocks named 3D
unet/diffusion_pytorch_model.bin  all tensors, tuned and frozen, under the names of `tav.VideoUNet`
vae, text_encoder, tokenizer, scheduler
inv_latents/ddim_latent-500.pt    `[1, 4, F, h, w]`, the inversion after 500 tuning steps
config.yaml                       what it was trained with
tav_version.json                  only in folders that `tav` wrote: what its own formats hold beyond that
"""

from __future__ import annotations

import inspect
import json
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from diffusers import UNet2DConditionModel
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from tav.config import AttentionMode
from tav.delta import DeltaMeta
from tav.errors import InvalidCheckpoint, InvalidConfig
from tav.latents import LatentsMeta
from tav.networks import DEFAULTS

WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
TEXT_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
RECORD = "tav_version.json"
PARTS = ("vae", "text_encoder", "tokenizer", "scheduler")
"""What a base is made of, besides its UNet."""

_NETWORK_KEYS = (
    "sample_size",
    "in_channels",
    "out_channels",
    "center_input_sample",
    "flip_sin_to_cos",
    "freq_shift",
    "down_block_types",
    "mid_block_type",
    "up_block_types",
    "only_cross_attention",
    "block_out_channels",
    "layers_per_block",
    "downsample_padding",
    "mid_block_scale_factor",
    "act_fn",
    "norm_num_groups",
    "norm_eps",
    "cross_attention_dim",
    "attention_head_dim",
    "dual_cross_attention",
    "use_linear_projection",
    "class_embed_type",
    "num_class_embeds",
    "upcast_attention",
    "resnet_time_scale_shift",
)
"""What the public implementation's network is made with."""


class Record(BaseModel):
    """`tav_version.json`: what makes a way there and back exact."""

    delta: DeltaMeta
    delta_dtype: str
    latents: LatentsMeta | None


@dataclass(frozen=True)
class PublicCheckpoint:
    """One folder, its tensors still on disk where the format allows."""

    folder: Path
    """The pipeline's folder, or the UNet's."""
    config: dict[str, Any]
    """Of the UNet, as it is there."""
    tensors: dict[str, Tensor]
    training: dict[str, Any]
    """`config.yaml`, or nothing."""
    record: Record | None

    @property
    def is_pipeline(self) -> bool:
        """True when the folder holds all parts of a base."""
        return all((self.folder / part).is_dir() for part in PARTS)

    @classmethod
    def read(cls, folder: Path) -> PublicCheckpoint:
        """Open a pipeline's folder or a UNet's.

        Raises:
            InvalidCheckpoint: no such folder, files that are missing, damaged or hold code, or another kind of network.
        """
        unet = folder / "unet" if (folder / "unet").is_dir() else folder
        config = _json(unet / "config.json")
        if config.get("_class_name") not in ("UNet3DConditionModel", "UNet2DConditionModel"):
            raise InvalidCheckpoint(f"{unet / 'config.json'} is not a Tune-A-Video UNet's: {config.get('_class_name')!r}")
        weights = next((unet / name for name in WEIGHTS if (unet / name).is_file()), None)
        if weights is None:
            raise InvalidCheckpoint(f"{unet} holds no weights: one of {', '.join(WEIGHTS)} must be there")
        tensors = read_tensors(weights)
        if not any(".attn_temp." in name for name in tensors):
            raise InvalidCheckpoint(
                f"{weights} has no temporal attention layers (attn_temp): it is a text-to-image UNet, not a tuned clip's"
            )
        record = folder / RECORD
        return cls(
            folder=folder,
            config=config,
            tensors=tensors,
            training=_yaml(folder / "config.yaml"),
            record=_record(record) if record.is_file() else None,
        )

    def attention(self) -> AttentionMode:
        """Return the ST-Attn mode that the UNet's config means.

        Raises:
            InvalidCheckpoint: it is a variant's, whose attention the config's names do not tell.
        """
        known = inspect.signature(UNet2DConditionModel.__init__).parameters
        odd = {k: v for k, v in self.config.items() if k not in known and not k.startswith("_")}
        if odd in ({}, {"use_sc_attn": True}):
            return "sparse_causal"
        said = ", ".join(f"{key}={value!r}" for key, value in odd.items())
        raise InvalidCheckpoint(
            f"the UNet's config has {said}, which the public implementation does not: "
            "say which attention it was tuned with (--attention sparse_causal, causal, full or frame)"
        )

    def latents_file(self) -> Path | None:
        """Find the inverted latents of the most tuning steps, if any are there."""
        files = self.folder.glob("inv_latents/ddim_latent-*.pt")
        numbered = {int(path.stem.rpartition("-")[2]): path for path in files if path.stem.rpartition("-")[2].isdecimal()}
        return numbered[max(numbered)] if numbered else None


def to_3d(config: dict[str, Any]) -> dict[str, Any]:
    """Write a base's UNet config as the public implementation does.

    Raises:
        InvalidConfig: its network cannot be made so.
    """
    for key, default in DEFAULTS.items():
        if key not in _NETWORK_KEYS and config.get(key, default) != default:
            raise InvalidConfig(f"the public implementation's network has no {key}, which is {config[key]!r} in this base's")
    network = {key: config[key] for key in _NETWORK_KEYS if key in config}
    return {"_class_name": "UNet3DConditionModel", "_diffusers_version": "0.11.1", **_renamed(network, "2D", "3D")}


def to_2d(config: dict[str, Any]) -> dict[str, Any]:
    """Return the base's config behind a 3-D one."""
    network = {key: config[key] for key in _NETWORK_KEYS if key in config}
    return {"_class_name": "UNet2DConditionModel", **_renamed(network, "3D", "2D")}


def _renamed(config: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    blocks = {key: [name.replace(old, new) for name in config[key]] for key in ("down_block_types", "up_block_types")}
    return {**config, **blocks, "mid_block_type": f"UNetMidBlock{new}CrossAttn"}


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a `.safetensors` or, unpickled without code, a `.bin` or `.pt` file.

    Raises:
        InvalidCheckpoint: damaged, or anything but a mapping of names to tensors.
    """
    loaded = _load(path)
    if not isinstance(loaded, dict) or not all(isinstance(tensor, Tensor) for tensor in loaded.values()):
        raise InvalidCheckpoint(f"{path} does not hold named tensors: give the UNet's weights")
    return loaded


def read_latents(path: Path) -> Tensor:
    """Read the one tensor `[1, C, F, h, w]` of a `ddim_latent-*.pt`.

    Raises:
        InvalidCheckpoint: damaged, or something else.
    """
    loaded = _load(path)
    if not isinstance(loaded, Tensor) or loaded.ndim != 5 or len(loaded) != 1 or not loaded.is_floating_point():
        raise InvalidCheckpoint(f"{path} does not hold inverted latents: one tensor [1, channels, frames, height, width]")
    return loaded.contiguous()


def _load(path: Path) -> Any:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InvalidCheckpoint(
            f"{path} holds more than tensors, and what it holds could run code: it was not loaded. "
            "Convert it to safetensors where you trust it"
        ) from error
    except (OSError, RuntimeError, EOFError, SafetensorError) as error:
        raise InvalidCheckpoint(f"{path} cannot be read ({error}): fetch it again") from error


def _json(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InvalidCheckpoint(f"{path} cannot be read: give a Tune-A-Video pipeline's folder, or its UNet's") from error
    return content


def _yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise InvalidCheckpoint(f"{path} is not YAML: repair or remove it") from error
    return content if isinstance(content, dict) else {}


def _record(path: Path) -> Record:
    try:
        return Record.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise InvalidCheckpoint(f"{path} is damaged: export again, or remove it and say by options what it held") from error
