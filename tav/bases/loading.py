"""Where a base's files lie, and how they are read: a diffusers folder, or one file in the original LDM layout.

Only safetensors weights are read: the others are pickles, which run code when they are read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from tav.bases import hub
from tav.bases.configs import read_config, recommended_in
from tav.bases.names import OFFLINE
from tav.bases.single_file import converted
from tav.errors import BaseUnavailable
from tav.networks import Networks, Unfit, build, fill, text_tensors, vae_tensors

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
    variants, files = _variants(folder), weight_files(folder)
    networks = _build(name, folder)
    tensors = {part: _tensors(file, name) for part, file in files.items()}
    _filled(name, folder, networks, tensors, dtype, "fetch it again")
    return Parts(**networks._asdict(), **_configured(folder, networks), fingerprint=_digest(_files(folder, variants)))


def _read_file(file: Path, dtype: torch.dtype, folder: Path) -> Parts:
    networks = _build(str(file), folder)
    tensors = converted(networks, _tensors(file, str(file)))
    _filled(str(file), folder, networks, tensors, dtype, "say config=, of its kind")
    fingerprint = _digest([("single file", file), *_files(folder)])
    return Parts(**networks._asdict(), **_configured(folder, networks), fingerprint=fingerprint)


def _build(name: str, folder: Path) -> Networks:
    try:
        return build(folder)
    except Unfit as error:
        raise BaseUnavailable(f"base {name!r} is no Stable Diffusion 1.x or 2.x text-to-image model: {error}") from error
    except (OSError, ValueError) as error:
        raise BaseUnavailable(f"the configs in {folder} cannot be read: {error}") from error


def _tensors(file: Path, name: str) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise BaseUnavailable(f"{file} of base {name!r} cannot be read as safetensors ({error}): fetch it again") from error


def _filled(
    name: str, folder: Path, networks: Networks, tensors: Mapping[str, Mapping[str, Tensor]], dtype: torch.dtype, advice: str
) -> None:
    text_encoder = networks.text_encoder
    named = {
        "unet": (tensors["unet"], dtype),
        "vae": (vae_tensors(tensors["vae"]), _vae_dtype(folder, dtype)),
        "text_encoder": (text_tensors(text_encoder, tensors["text_encoder"]), dtype),
    }
    for part, network in networks._asdict().items():
        try:
            fill(network, *named[part])
        except Unfit as error:
            raise BaseUnavailable(
                f"base {name!r} does not fit the configs in {folder}: its {part} {error}; {advice}"
            ) from error


def _configs_of(file: Path, config: str | None) -> Path:
    """Find the diffusers folder whose configs and vocabulary describe a single file, which holds neither."""
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
        folder = hub.download(config, _CONFIGS)
    if not (folder / "unet" / "config.json").is_file():
        raise BaseUnavailable(f"config {config!r} has no unet/config.json: give a whole diffusers folder")
    return folder


def _configured(folder: Path, networks: Networks) -> dict[str, Any]:
    try:
        return {
            "tokenizer": _tokenizer(folder / "tokenizer", networks.text_encoder),
            "scheduler_config": read_config(folder / "scheduler" / "scheduler_config.json"),
            "defaults": recommended_in(folder),
        }
    except (OSError, ValueError) as error:
        raise BaseUnavailable(f"the vocabulary or schedule in {folder} cannot be read: {error}") from error


def _tokenizer(folder: Path, text_encoder: CLIPTextModel) -> CLIPTokenizer:
    for name in () if (folder / "tokenizer.json").is_file() else ("vocab.json", "merges.txt"):
        if not (folder / name).is_file():  # of nothing, transformers would make a vocabulary of two words
            raise BaseUnavailable(f"{folder} has no {name}: give a whole diffusers folder of Stable Diffusion 1.x or 2.x")
    tokenizer, config = CLIPTokenizer.from_pretrained(str(folder), local_files_only=True), text_encoder.config
    if len(tokenizer) > config.vocab_size:
        raise BaseUnavailable(
            f"the vocabulary in {folder} has {len(tokenizer)} words, its text encoder {config.vocab_size}: fetch it again"
        )
    # 10^30 where its files do not say
    tokenizer.model_max_length = min(tokenizer.model_max_length, config.max_position_embeddings)
    return tokenizer


def _vae_dtype(folder: Path, dtype: torch.dtype) -> torch.dtype:
    """Return fp32 for a VAE whose activations overflow fp16 (black frames), as most of Stable Diffusion's do."""
    overflows = read_config(folder / "vae" / "config.json").get("force_upcast", True)
    return torch.float32 if overflows and dtype == torch.float16 else dtype


def weight_files(folder: Path) -> dict[str, Path]:
    """Find the safetensors file of each network in a diffusers folder: its own, or else the `fp16` variant.

    Raises:
        BaseUnavailable: a network has none.
    """
    return {part: folder / part / _weights(part, variant) for part, variant in _variants(folder).items()}


def _variants(folder: Path) -> dict[str, str | None]:
    return {part: _variant(folder, part) for part in _STEMS}


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
    """Find the folder of a base: a path, the shipped `offline`, or a hub id (downloaded once, then from the hub's cache).

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
        folder = hub.download(name, [*_CONFIGS, *(f"{part}/{_weights(part, variant)}" for part in _STEMS)])
        if (folder / "unet" / _weights("unet", variant)).is_file():
            break
    return folder


def _files(folder: Path, variants: dict[str, str | None] | None = None) -> Iterator[tuple[str, Path]]:
    """Yield what makes a base what it is: configs, vocabulary and, with `variants`, weights."""
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
