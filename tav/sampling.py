"""Sampling edited prompts (Tune-A-Video §3.4): from the inverted latents, with classifier-free guidance."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tav.base import Base
from tav.caching import FeatureCache
from tav.config import Progress, SampleConfig
from tav.ddim import DDIM
from tav.delta import Delta
from tav.errors import InvalidConfig
from tav.inflation import VideoUNet, inflate
from tav.injection import first_row_everywhere
from tav.latents import Latents
from tav.precision import FiniteWatch
from tav.solvers import solver
from tav.tuning import OnStep
from tav.video import Video

PromptName = Literal["empty", "negative", "edit"]


@dataclass(frozen=True)
class SampleStep:
    """One step of denoising: the rows that the network predicts, and what becomes of the prediction."""

    timestep: int
    prompts: tuple[PromptName, ...]
    """One for each row of the batch."""
    retrace: bool = False
    """Goes back along the inversion, by DDIM and under the empty prompt, whatever the solver."""
    inject: bool = False
    """The first row is the clip's own denoising; the others take over its features."""

    @property
    def guided(self) -> bool:
        """Whether classifier-free guidance combines two rows."""
        return "negative" in self.prompts


def plan_steps(config: SampleConfig, timesteps: Sequence[int], inverted: bool) -> list[SampleStep]:
    """Plan which rows the network predicts in each step.

    Args:
        config: shares of the steps: strength, guidance interval, feature injection.
        timesteps: of the grid, descending.
        inverted: sampling starts from inverted latents; without them there is nothing to retrace or to inject.
    """

    def count(share: float) -> int:
        return round(share * len(timesteps))

    retraced, injected = (count(1 - config.strength), count(config.feature_injection)) if inverted else (0, 0)
    guided = range(*map(count, config.guidance_interval)) if config.guidance_scale > 1 else range(0)
    steps = []
    for i, timestep in enumerate(timesteps):
        retrace = i < retraced
        prompts: tuple[PromptName, ...] = ("empty",) if retrace else ("negative", "edit") if i in guided else ("edit",)
        # While the inversion is retraced, the latents are the clip's own unless noise was blended into them.
        inject = i < injected and (not retrace or config.noise_blend > 0)
        steps.append(SampleStep(timestep, ("empty", *prompts) if inject else prompts, retrace, inject))
    return steps


class Sampler:
    """One inflated network on one base, into which deltas are swapped. Threads may share it: it draws one video at a time.

    Args:
        base: the base.
        net: a network inflated from it to use instead of a new one; its tuned tensors are overwritten.
    """

    def __init__(self, base: Base, net: VideoUNet | None = None) -> None:
        self.base = base
        self.net = net or inflate(base.unet)

    @torch.inference_mode()
    def sample(
        self,
        prompt: str,
        *,
        delta: Delta,
        latents: Latents | None = None,
        config: SampleConfig | None = None,
        on_step: OnStep | None = None,
    ) -> Video:
        """Sample one video.

        Args:
            prompt: the edited prompt.
            delta: made with this base; swapped in.
            latents: the clip's inverted latents; without them, Gaussian noise from `config.seed`.
            config: steps, guidance and the rest; without it the base's recommended ones.
            on_step: called after every step; what it raises stops the work. It may not work with this network itself.

        Raises:
            BaseMismatch: `delta` or `latents` were made with another base.
            InvalidConfig: a size or frame count that the latents do not have.
            NanLoss: the network's or the VAE's arithmetic overflowed; seen in the first step, or one step after it happened.
        """
        with self.net.context.alone():
            return self._sample(prompt, delta, latents, config or self.base.sample_config(), on_step)

    def _sample(
        self, prompt: str, delta: Delta, inverted: Latents | None, config: SampleConfig, on_step: OnStep | None
    ) -> Video:
        base = self.base
        delta.meta.origin.check(base)
        latents = self._start(delta, inverted, config)
        delta.apply(self.net)
        start = inverted.inverted_to(base.scheduler_config) if inverted else None
        ddim = DDIM(base.scheduler_config, config.num_inference_steps, start, even=config.scheduler != "ddim")
        steps = plan_steps(config, ddim.timesteps, inverted is not None)
        solve = solver(ddim, config.scheduler, first=sum(step.retrace for step in steps))
        text_of = self._encode(prompt, config.negative_prompt if any(step.guided for step in steps) else None)
        source = inverted.tensor.to(latents) if inverted else latents
        cache = FeatureCache(self.net, config.cache_interval)
        watch = FiniteWatch("sampling", base.dtype, at_once=base.device.type == "cpu")
        for number, step in enumerate(steps, 1):
            began, t = time.perf_counter(), step.timestep
            rows = torch.cat([source] * step.inject + [latents] * (len(step.prompts) - step.inject)).to(base.dtype)
            text = torch.cat([text_of[prompt] for prompt in step.prompts])
            with first_row_everywhere(self.net, config.injected_layers if step.inject else (), len(rows)):
                noise_pred = cache.predict(rows, t, text, rows=None if step.retrace else step.prompts)
            if step.inject:
                source, noise_pred = ddim.down(source, noise_pred[:1], t), noise_pred[1:]
            if step.guided:
                noise_pred_uncond, noise_pred_text = noise_pred.float().chunk(2)
                noise_pred = noise_pred_uncond + config.guidance_scale * (noise_pred_text - noise_pred_uncond)
            latents = (ddim.down if step.retrace else solve)(latents, noise_pred, t)
            if not step.inject:
                source = latents
            watch.see(number, latents)
            if on_step:
                on_step(Progress("sampling", number, len(steps), seconds=time.perf_counter() - began))
        watch.end()
        return Video(base.decode_latents(latents), config.fps or delta.meta.origin.fps, digest(latents))

    def _encode(self, prompt: str, negative: str | None) -> dict[PromptName, Tensor]:
        """Encode the prompts, each `[1, L, D]`; the negative one only where a step is guided by it."""
        text = self.base.encode_text([prompt] if negative is None else [negative, prompt])
        return {"empty": self.base.encode_text([""]), "negative": text[:1], "edit": text[-1:]}

    def _start(self, delta: Delta, latents: Latents | None, config: SampleConfig) -> Tensor:
        """Return where denoising starts, `[1, 4, F, h, w]` in fp32."""
        origin, blend = delta.meta.origin, config.noise_blend
        if latents is not None:
            latents.meta.origin.check(self.base)
            num_frames, (width, height) = latents.meta.origin.num_frames, latents.meta.origin.size
            if (config.num_frames or num_frames, config.size or (width, height)) != (num_frames, (width, height)):
                raise InvalidConfig(
                    f"the inverted latents hold {num_frames} frames of {width}x{height}: "
                    "leave num_frames and size out, or sample without inverted latents"
                )
            inverted = latents.tensor.to(self.base.device, torch.float32)
            if blend == 0:
                return inverted
            return (1 - blend) ** 0.5 * inverted + blend**0.5 * self._noise(inverted.shape, config.seed)
        if blend > 0:
            raise InvalidConfig("noise_blend mixes noise into inverted latents: give these, or leave noise_blend out")
        width, height = config.size or origin.size
        scale = self.base.scale
        self.base.check_size(width, height)
        shape = (1, self.net.config.in_channels, config.num_frames or origin.num_frames, height // scale, width // scale)
        return self._noise(shape, config.seed)

    def _noise(self, shape: Sequence[int], seed: int) -> Tensor:
        # Drawn on the CPU, so that a seed means the same on every device.
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(self.base.device)


def digest(latents: Tensor) -> str:
    """Return the sha256 over latents `[1, 4, F, h, w]` in fp32: the same digest, the same sampling."""
    return hashlib.sha256(latents.float().cpu().contiguous().numpy().tobytes()).hexdigest()


def sample(
    base: Base,
    prompt: str,
    *,
    delta: Delta,
    latents: Latents | None = None,
    config: SampleConfig | None = None,
    on_step: OnStep | None = None,
) -> Video:
    """Sample once; see `Sampler.sample`."""
    return Sampler(base).sample(prompt, delta=delta, latents=latents, config=config, on_step=on_step)
