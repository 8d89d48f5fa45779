"""Where a base's files lie, and how they are read: a diffusers folder, or one file in the original LDM layout.

Only safetensors weights are read: the others are pickles, which run code when they are read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from transformers import CLIPTextModel, CLIPTokenizer

from tav.bases import OFFLINE
from tav.errors import BaseUnavailable
from tav.singlefile import read_single_file

_STEMS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}
_VARIANTS = (None, "fp16")  # of weight files, in order of preference
_PARTS = (*_STEMS, "tokenizer", "scheduler")
_CONFIGS = ["model_index.json", "tav.json", "*/*.json", "*/*.txt"]
_PICKLES = (".ckpt", ".pt", ".pth", ".bin")


@dataclass
class Parts:
    """What a base is made of."""

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    scheduler_config: dict[str, Any]
    fingerprint: str
    """sha256 over the names and contents of its configs, vocabulary and weights."""
    defaults: dict[str, dict[str, Any]]
    """Its `tav.json`, if any."""


def read(name: str, dtype: torch.dtype, config: str | None = None) -> Parts:
    """Read a base; see `Base.load`."""
    path = Path(name)
    if path.suffix in _PICKLES and not path.is_dir():
        raise BaseUnavailable(
            f"base {name!r} is a {path.suffix} file, a pickle, which can run code when it is read: convert it to safetensors"
        )
    if path.suffix == ".safetensors" and not path.is_dir():
        if not path.is_file():
            raise BaseUnavailable(f"base {name!r} is not there: check the path")
        return _read_file(path, dtype, _configs_of(path, config))
    folder = find(name)
    variants = {part: _variant(folder, part) for part in _STEMS}
    where = {"pretrained_model_name_or_path": str(folder), "use_safetensors": True, "local_files_only": True}
    try:
        return Parts(
            unet=UNet2DConditionModel.from_pretrained(**where, subfolder="unet", variant=variants["unet"], torch_dtype=dtype),
            vae=AutoencoderKL.from_pretrained(
                **where, subfolder="vae", variant=variants["vae"], torch_dtype=_vae_dtype(folder, dtype)
            ),
            text_encoder=CLIPTextModel.from_pretrained(
                **where, subfolder="text_encoder", variant=variants["text_encoder"], dtype=dtype
            ),
            fingerprint=_digest(_files(folder, variants)),
            **_configured(folder),
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise BaseUnavailable(f"base {name!r} cannot be loaded from {folder}: {error}") from error


def _read_file(file: Path, dtype: torch.dtype, folder: Path) -> Parts:
    try:
        configured, vae_dtype = _configured(folder), _vae_dtype(folder, dtype)
        unet, vae, text_encoder = read_single_file(file, folder, dtype, vae_dtype)
    except (OSError, ValueError) as error:
        raise BaseUnavailable(f"the configs in {folder} cannot be read: {error}") from error
    fingerprint = _digest([("single file", file), *_files(folder)])
    return Parts(unet=unet, vae=vae, text_encoder=text_encoder, fingerprint=fingerprint, **configured)


def _configs_of(file: Path, config: str | None) -> Path:
    """The diffusers folder whose configs and vocabulary describe a single file, which holds neither."""
    if config is None:
        folder = file.parent
        if not (folder / "unet" / "config.json").is_file():
            raise BaseUnavailable(
                f"base {str(file)!r} holds weights alone: say config=, a diffusers folder or hub id of the same kind "
                "(SD1.x, SD2.x, epsilon or v-prediction), or put the file into such a folder"
            )
        return folder
    folder = Path(config)
    if not folder.is_dir():
        folder = _download(config, [])
    if not (folder / "unet" / "config.json").is_file():
        raise BaseUnavailable(f"config {config!r} has no unet/config.json: give a whole diffusers folder")
    return folder


def _configured(folder: Path) -> dict[str, Any]:
    settings = folder / "tav.json"
    return {
        "tokenizer": CLIPTokenizer.from_pretrained(str(folder / "tokenizer"), local_files_only=True),
        "scheduler_config": json.loads((folder / "scheduler" / "scheduler_config.json").read_text()),
        "defaults": json.loads(settings.read_text()) if settings.exists() else {},
    }


def _vae_dtype(folder: Path, dtype: torch.dtype) -> torch.dtype:
    """fp32 for a VAE whose activations overflow fp16 (black frames), as most of Stable Diffusion's do."""
    overflows = json.loads((folder / "vae" / "config.json").read_text()).get("force_upcast", True)
    return torch.float32 if overflows and dtype == torch.float16 else dtype


def _variant(folder: Path, part: str) -> str | None:
    for variant in _VARIANTS:
        if (folder / part / _weights(part, variant)).is_file():
            return variant
    pickles = [file.name for file in sorted((folder / part).glob("*")) if file.suffix in _PICKLES]
    if pickles:
        raise BaseUnavailable(
            f"{folder / part} has only {pickles[0]}, a pickle, which can run code when it is read: "
            "save the base again with diffusers' `save_pretrained`, which writes safetensors"
        )
    raise BaseUnavailable(
        f"{folder / part} has no {_weights(part)}: give a whole diffusers folder of Stable Diffusion 1.x or 2.x"
    )


def _weights(part: str, variant: str | None = None) -> str:
    return f"{_STEMS[part]}.{variant}.safetensors" if variant else f"{_STEMS[part]}.safetensors"


def find(name: str) -> Path:
    """The folder of a base: a path, the shipped `offline`, or a hub id (downloaded once, then from the hub's cache).

    Raises:
        BaseUnavailable: no such base.
    """
    if name == "offline":
        return OFFLINE
    if Path(name).is_dir():
        return Path(name)
    if Path(name).is_file():
        raise BaseUnavailable(f"{name!r} is a single file where a diffusers folder is needed: convert it with diffusers first")
    for variant in _VARIANTS:
        folder = _download(name, [f"{part}/{_weights(part, variant)}" for part in _STEMS])
        if (folder / "unet" / _weights("unet", variant)).is_file():
            break
    return folder


def _download(name: str, weights: list[str]) -> Path:
    try:
        return Path(snapshot_download(name, allow_patterns=[*_CONFIGS, *weights]))
    except (HfHubHTTPError, LocalEntryNotFoundError, HFValidationError, OSError) as error:
        raise BaseUnavailable(
            f"{name!r} is neither a folder nor on the hub ({type(error).__name__}): check the path, "
            "or use the shipped base 'offline'"
        ) from error


def _files(folder: Path, variants: dict[str, str | None] | None = None) -> Iterator[tuple[str, Path]]:
    """What makes a base what it is: configs, vocabulary and, with `variants`, weights."""
    for part in _PARTS:
        weights = _weights(part, variants[part]) if variants and part in variants else None
        for file in sorted((folder / part).glob("*")):
            if file.suffix in (".json", ".txt") or file.name == weights:
                yield f"{part}/{file.name}", file


def _digest(files: Any) -> str:
    digest = hashlib.sha256()
    for name, file in files:
        digest.update(f"{name}\0".encode())
        with file.open("rb") as handle:
            digest.update(hashlib.file_digest(handle, "sha256").digest())
    return digest.hexdigest()
