"""A base's other parts as the public implementation's libraries read them: diffusers 0.11.1, and transformers 4.30 or before.

Under today's names these libraries find no text encoder and no attention in the VAE, and put random values there.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from tav.base import Base
from tav.bases.loading import weight_files
from tav.errors import InvalidConfig
from tav.networks import old_text_tensors, old_vae_tensors, text_tensors, vae_tensors

SCALING_FACTOR = 0.18215
"""Of latents: a number in the public implementation's code."""
_SCHEDULERS = (
    "DDIMScheduler",
    "PNDMScheduler",
    "LMSDiscreteScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "DPMSolverMultistepScheduler",
)
_ALWAYS = ("use_quant_conv", "use_post_quant_conv", "mid_block_add_attention")
"""What every VAE of diffusers 0.11.1 has."""


def write_parts(base: Base, folder: Path, out: Path) -> list[str]:
    """Write VAE, text encoder, tokenizer and scheduler of a base in `folder` into `out`.

    Returns:
        What the public implementation does otherwise with such a base, a clause each.

    Raises:
        InvalidConfig: diffusers 0.11.1 has no such VAE.
    """
    if lacking := [key for key in _ALWAYS if not base.vae.config.get(key, True)]:
        raise InvalidConfig(f"the public implementation's libraries have no VAE like this base's ({lacking[0]} is false)")
    for part in ("vae", "text_encoder", "tokenizer", "scheduler"):
        copy_texts(folder / part, out / part)
    weights = weight_files(folder)
    torch.save(old_vae_tensors(vae_tensors(load_file(weights["vae"]))), out / "vae" / "diffusion_pytorch_model.bin")
    torch.save(_text(base, weights["text_encoder"]), out / "text_encoder" / "pytorch_model.bin")
    _write_tokenizer(base, out / "tokenizer")
    return [*_scheduler(out / "scheduler" / "scheduler_config.json"), *_scaling(base)]


def copy_texts(folder: Path, out: Path) -> None:
    """Copy what a part of a base has beside its weights: configs and vocabulary."""
    out.mkdir(parents=True, exist_ok=True)
    for file in folder.iterdir():
        if file.suffix in (".json", ".txt") and not file.name.endswith(".index.json"):
            shutil.copy(file, out)


def _text(base: Base, weights: Path) -> dict[str, Tensor]:
    tensors = text_tensors(base.text_encoder, load_file(weights))
    positions = torch.arange(base.text_encoder.config.max_position_embeddings)[None]
    return old_text_tensors({**tensors, "embeddings.position_ids": positions})


def _write_tokenizer(base: Base, out: Path) -> None:
    """Vocabulary and merges in files of their own; today's libraries write one for both, which the older ones do not read."""
    tokenizer = base.tokenizer
    if not (out / "vocab.json").is_file() or not (out / "merges.txt").is_file():
        model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
        (out / "vocab.json").write_text(json.dumps(tokenizer.get_vocab(), ensure_ascii=False))
        merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
        (out / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
    config = out / "tokenizer_config.json"
    known = json.loads(config.read_text()) if config.is_file() else {}
    config.write_text(json.dumps(known | {"tokenizer_class": "CLIPTokenizer", "model_max_length": tokenizer.model_max_length}))


def _scheduler(file: Path) -> list[str]:
    config = json.loads(file.read_text())
    if config.get("_class_name") not in _SCHEDULERS:
        config["_class_name"] = "DDIMScheduler"
        file.write_text(json.dumps(config, indent=2))
    differs = []
    if (spacing := config.get("timestep_spacing", "leading")) != "leading":
        differs.append(f"this base's timestep spacing is {spacing!r}; the public implementation's is 'leading'")
    if config.get("rescale_betas_zero_snr"):
        differs.append("this base's schedule ends at zero SNR (rescale_betas_zero_snr); the public implementation's does not")
    return differs


def _scaling(base: Base) -> list[str]:
    factor = base.vae.config.scaling_factor
    if factor == SCALING_FACTOR:
        return []
    return [
        f"this base's latents are scaled by {factor:g}; the public implementation has {SCALING_FACTOR} in its code "
        f"(put {factor:g} in its place)"
    ]
