"""The base: a frozen Stable Diffusion 1.x/2.x model in the diffusers folder layout."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from tav.bases import OFFLINE
from tav.config import ClipConfig, InvertConfig, NetConfig, SampleConfig, TuneConfig
from tav.errors import BaseUnavailable
from tav.video import Frames

_WEIGHTS = ("diffusion_pytorch_model.safetensors", "model.safetensors")
_FILES = ["model_index.json", "tav.json", "*/*.json", "*/*.txt", *(f"*/{name}" for name in _WEIGHTS)]
_IDENTITY = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
_FRAMES_AT_ONCE = 8  # through the VAE, whose activations are the largest of all


@dataclass
class Base:
    """A loaded base. All parameters are frozen."""

    name: str
    fingerprint: str
    """sha256 over its configs and weights: what a delta is bound to."""
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    scheduler_config: dict[str, Any]
    device: torch.device
    dtype: torch.dtype
    defaults: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The base's own `tav.json`, if any: recommended `clip`, `net`, `tune`, `invert`, `sample` settings over the paper's."""

    @classmethod
    def load(cls, name: str, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> Base:
        """Load a base from a folder, from the hub by id, or the shipped one by the name `offline`.

        Only safetensors weights are read.

        Raises:
            BaseUnavailable: no such base, or its files are incomplete.
        """
        folder = find(name)
        where = {"pretrained_model_name_or_path": str(folder), "torch_dtype": dtype, "local_files_only": True}
        try:
            unet = UNet2DConditionModel.from_pretrained(**where, subfolder="unet", use_safetensors=True)
            vae = AutoencoderKL.from_pretrained(**where, subfolder="vae", use_safetensors=True)
            text_encoder = CLIPTextModel.from_pretrained(str(folder / "text_encoder"), dtype=dtype, local_files_only=True)
            tokenizer = CLIPTokenizer.from_pretrained(str(folder / "tokenizer"), local_files_only=True)
            scheduler_config = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
        except (OSError, ValueError) as error:
            raise BaseUnavailable(f"base {name!r} cannot be loaded from {folder}: {error}") from error
        for part in (unet, vae, text_encoder):
            part.to(device).eval().requires_grad_(False)
        settings = folder / "tav.json"
        return cls(
            name=name,
            fingerprint=fingerprint(folder),
            unet=unet,
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            scheduler_config=scheduler_config,
            device=torch.device(device),
            dtype=dtype,
            defaults=json.loads(settings.read_text()) if settings.exists() else {},
        )

    def clip_config(self, **overrides: Any) -> ClipConfig:
        """The paper's, under the base's recommendation, under `overrides`; None counts as not given. Likewise below."""
        return ClipConfig(**self._merged("clip", overrides))

    def net_config(self, **overrides: Any) -> NetConfig:
        """How this base is inflated."""
        return NetConfig(**self._merged("net", overrides))

    def tune_config(self, **overrides: Any) -> TuneConfig:
        """Settings of tuning on this base."""
        return TuneConfig(**self._merged("tune", overrides))

    def invert_config(self, **overrides: Any) -> InvertConfig:
        """Settings of inversion on this base."""
        return InvertConfig(**self._merged("invert", overrides))

    def sample_config(self, **overrides: Any) -> SampleConfig:
        """Settings of sampling on this base."""
        return SampleConfig(**self._merged("sample", overrides))

    def _merged(self, part: str, overrides: dict[str, Any]) -> dict[str, Any]:
        return self.defaults.get(part, {}) | {k: v for k, v in overrides.items() if v is not None}

    @property
    def scale(self) -> int:
        """Pixels per latent, along each side: 8 for Stable Diffusion."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @torch.no_grad()
    def encode_text(self, prompts: list[str]) -> Tensor:
        """Prompts -> text-encoder states `[B, L, D]`. Longer prompts are cut at the tokenizer's limit, as in diffusers."""
        tokens = self.tokenizer(
            prompts, padding="max_length", max_length=self.tokenizer.model_max_length, truncation=True, return_tensors="pt"
        )
        states: Tensor = self.text_encoder(tokens.input_ids.to(self.device)).last_hidden_state
        return states

    @torch.no_grad()
    def encode_frames(self, frames: Frames) -> tuple[Tensor, Tensor]:
        """Frames uint8 `[F, H, W, 3]` -> mean and standard deviation of the VAE posterior, scaled, each `[1, 4, F, h, w]`."""
        pixels = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)
        chunks = []
        for chunk in pixels.split(_FRAMES_AT_ONCE):
            posterior = self.vae.encode(chunk.to(self.device, self.dtype) / 127.5 - 1).latent_dist
            chunks.append(torch.stack([posterior.mean, posterior.std]))
        moments = torch.cat(chunks, dim=1) * self.vae.config.scaling_factor  # [2, F, 4, h, w]
        mean, std = moments.transpose(1, 2).unsqueeze(1)
        return mean, std

    @torch.no_grad()
    def decode_latents(self, latents: Tensor) -> Frames:
        """Latents `[1, 4, F, h, w]` -> frames uint8 `[F, H, W, 3]`."""
        folded = latents[0].transpose(0, 1).to(self.dtype) / self.vae.config.scaling_factor
        pixels = torch.cat([self.vae.decode(chunk).sample for chunk in folded.split(_FRAMES_AT_ONCE)])
        frames = ((pixels.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        return np.ascontiguousarray(frames.permute(0, 2, 3, 1).cpu().numpy())


def find(name: str) -> Path:
    """The folder of a base: a path, the shipped `offline`, or a hub id (downloaded once, then from the hub's cache).

    Raises:
        BaseUnavailable: no such base.
    """
    if name == "offline":
        return OFFLINE
    if Path(name).is_dir():
        return Path(name)
    try:
        return Path(snapshot_download(name, allow_patterns=_FILES))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise BaseUnavailable(
            f"no base {name!r}: give a diffusers folder, a hub id such as CompVis/stable-diffusion-v1-4, or 'offline'"
        ) from error


def fingerprint(folder: Path) -> str:
    """sha256 over the names and contents of a base's configs, vocabulary and weights."""
    digest = hashlib.sha256()
    for part in _IDENTITY:
        for file in sorted((folder / part).glob("*")):
            if file.suffix in (".json", ".txt") or file.name in _WEIGHTS:
                digest.update(f"{part}/{file.name}\0".encode())
                with file.open("rb") as handle:
                    digest.update(hashlib.file_digest(handle, "sha256").digest())
    return digest.hexdigest()
