"""A text-to-video model that never sees the clip: what a prompt alone gives."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

from tav.errors import BaseUnavailable, InvalidConfig
from tav.eval.methods.workbench import Workbench
from tav.eval.suite import Case, SuiteClip
from tav.media.timestamps import frame_indices
from tav.video import Frames, Video


class TextToVideoModel:
    """Any text-to-video pipeline of diffusers, loaded when it is first asked for.

    Args:
        name: hub id or folder.
        device: where it computes.
        dtype: of its weights.
    """

    def __init__(self, name: str, device: torch.device, dtype: torch.dtype) -> None:
        self.name, self._device, self._dtype = name, device, dtype

    @cached_property
    def _pipeline(self) -> Any:
        from diffusers import DiffusionPipeline

        try:
            pipeline = DiffusionPipeline.from_pretrained(self.name, dtype=self._dtype, use_safetensors=True)
        except (OSError, ValueError) as error:
            raise BaseUnavailable(f"the text-to-video model {self.name!r} cannot be loaded: {error}") from error
        pipeline.set_progress_bar_config(disable=True)
        return pipeline.to(self._device)

    def sample(self, prompt: str, seed: int) -> Frames:
        """Sample the model's own frames, at its own size, number and settings: uint8 `[F, H, W, 3]`.

        Raises:
            BaseUnavailable: the model cannot be loaded.
            InvalidConfig: what it makes of a prompt is no video.
        """
        sampled = self._pipeline(prompt, generator=torch.Generator().manual_seed(seed), output_type="np")
        frames = np.asarray(getattr(sampled, "frames", np.empty(0)))
        if frames.ndim != 5:
            raise InvalidConfig(f"{self.name!r} is no text-to-video model: its pipeline gives no frames")
        return (frames[0] * 255).round().astype(np.uint8)


@dataclass(frozen=True)
class TextToVideo:
    """The prompt alone. Its frames are spread evenly over its own video, then fitted to the clip's number and size."""

    name: str

    @property
    def about(self) -> str:
        """One sentence for the report."""
        return "A text-to-video model, zero-shot: the prompt alone, without the clip; fitted to the clip's frames and size."

    def sample(self, bench: Workbench, clip: SuiteClip, case: Case) -> Video:
        """See `Method.sample`."""
        source, sampled = bench.clip(clip), bench.text_to_video.sample(case.prompt, case.seed)
        chosen = sampled[frame_indices(len(sampled), min(len(source.frames), len(sampled)))]
        chosen = chosen[np.linspace(0, len(chosen) - 1, len(source.frames)).round().astype(int)]  # repeats, where it made fewer
        fitted = [np.asarray(ImageOps.fit(Image.fromarray(frame), source.size, Image.Resampling.BICUBIC)) for frame in chosen]
        return Video(np.stack(fitted), source.fps)
