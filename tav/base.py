"""The base: a frozen Stable Diffusion 1.x/2.x model."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from tav.bases import loading
from tav.config import ClipConfig, InvertConfig, NetConfig, SampleConfig, TuneConfig
from tav.ddim import DDIM
from tav.errors import NanLoss
from tav.prompts import Reader, window_of
from tav.vae import FRAMES_AT_ONCE, check_size, scale_of
from tav.video import Frames


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
    reader: Reader = field(init=False, repr=False, compare=False)
    """Says what of a text this base does not read."""

    def __post_init__(self) -> None:
        window = window_of(self.tokenizer, self.text_encoder.config.max_position_embeddings)
        self.reader = Reader(self.tokenizer, window)

    @classmethod
    def load(
        cls,
        name: str,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        config: str | None = None,
        revision: str | None = None,
    ) -> Base:
        """Load a Stable Diffusion 1.x or 2.x base.

        Args:
            name: a diffusers folder, the id of one on the hub (`owner/name`, or `owner/name@revision`), a single `.safetensors`
                file in the original LDM layout, or `offline`, the one that ships with this package.
            device: where it computes.
            dtype: fp32, bf16 or fp16. With fp16, a VAE that overflows it (`force_upcast` in its config) stays in fp32.
            config: of a single file: the diffusers folder, or its id on the hub, whose configs and vocabulary describe it.
                Left out, the folder in which the file lies.
            revision: of a base on the hub: a branch, a tag or a commit hash. It becomes part of the base's name.

        Raises:
            BaseUnavailable: no such base, its files are incomplete or not safetensors, or it is of another kind. What is
                missing is named; no tensor is ever left at a random value.
            InvalidConfig: its noise schedule cannot be sampled.
        """
        name = f"{name}@{revision}" if revision else name
        parts = loading.read(name, dtype, config)
        DDIM(parts.scheduler_config, 1)
        for part in (parts.unet, parts.vae, parts.text_encoder):
            part.to(device).eval().requires_grad_(False)
        return cls(name=name, device=torch.device(device), dtype=dtype, **vars(parts))

    def clip_config(self, **overrides: Any) -> ClipConfig:
        """Return the paper's settings, under the base's recommendation, under `overrides`. None counts as left out."""
        return ClipConfig(**self._merged("clip", overrides))

    def net_config(self, **overrides: Any) -> NetConfig:
        """Return how this base is inflated; see `clip_config`."""
        return NetConfig(**self._merged("net", overrides))

    def tune_config(self, **overrides: Any) -> TuneConfig:
        """Return the settings of tuning on this base; see `clip_config`."""
        return TuneConfig(**self._merged("tune", overrides))

    def invert_config(self, **overrides: Any) -> InvertConfig:
        """Return the settings of inversion on this base; see `clip_config`."""
        return InvertConfig(**self._merged("invert", overrides))

    def sample_config(self, **overrides: Any) -> SampleConfig:
        """Return the settings of sampling on this base; see `clip_config`."""
        return SampleConfig(**self._merged("sample", overrides))

    def _merged(self, part: str, overrides: dict[str, Any]) -> dict[str, Any]:
        return self.defaults.get(part, {}) | {k: v for k, v in overrides.items() if v is not None}

    @property
    def scale(self) -> int:
        """Pixels per latent, along each side: 8 for Stable Diffusion."""
        return scale_of(self.vae.config)

    def check_size(self, width: int, height: int) -> None:
        """Refuse what latents cannot hold.

        Raises:
            InvalidConfig: says which sizes will do.
        """
        check_size(width, height, self.scale, self.name)

    @torch.no_grad()
    def encode_text(self, prompts: list[str]) -> Tensor:
        """Encode prompts as text-encoder states `[B, L, D]`. What lies beyond the encoder's window is cut off, with a warning
        that quotes it (see `reader`); weights such as `(word:1.3)` are read as text."""
        for prompt in prompts:
            if unread := self.reader.unread(prompt):
                warnings.warn(
                    f"{self.name} does not read the end of a prompt that is too long for it: {unread!r}", stacklevel=3
                )
        tokens = torch.tensor(self.reader.read(prompts), device=self.device)
        states: Tensor = self.text_encoder(tokens).last_hidden_state
        return states

    @torch.no_grad()
    def encode_frames(self, frames: Frames) -> tuple[Tensor, Tensor]:
        """Encode frames uint8 `[F, H, W, 3]` as mean and standard deviation of the VAE posterior, scaled, each `[1, 4, F, h,
        w]`.

        Raises:
            InvalidConfig: a size that the VAE cannot halve often enough.
            NanLoss: its arithmetic overflowed.
        """
        self.check_size(frames.shape[2], frames.shape[1])
        pixels = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)
        chunks = []
        for chunk in pixels.split(FRAMES_AT_ONCE):
            posterior = self.vae.encode(chunk.to(self.device, self.vae.dtype) / 127.5 - 1).latent_dist
            chunks.append(torch.stack([posterior.mean, posterior.std]))
        moments = self._finite(torch.cat(chunks, dim=1)) * self.vae.config.scaling_factor  # [2, F, 4, h, w]
        mean, std = moments.transpose(1, 2).unsqueeze(1)
        return mean, std

    @torch.no_grad()
    def decode_latents(self, latents: Tensor) -> Frames:
        """Decode latents `[1, 4, F, h, w]` to frames uint8 `[F, H, W, 3]`."""
        folded = latents[0].transpose(0, 1).to(self.vae.dtype) / self.vae.config.scaling_factor
        return np.concatenate([self._decode(chunk) for chunk in folded.split(FRAMES_AT_ONCE)])

    def _decode(self, latents: Tensor) -> Frames:
        pixels = self._finite(self.vae.decode(latents).sample)
        frames = ((pixels.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        return frames.permute(0, 2, 3, 1).cpu().numpy()

    def _finite(self, out: Tensor) -> Tensor:
        if not out.isfinite().all():
            raise NanLoss(
                "the VAE gave values that are not finite: load the base in bf16 or fp32, or set force_upcast in its config"
            )
        return out
