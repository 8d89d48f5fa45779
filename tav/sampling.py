"""Sampling edited prompts (Tune-A-Video §3.4): from the inverted latents, with classifier-free guidance."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence

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
        self, prompt: str, delta: Delta, latents: Latents | None, config: SampleConfig, on_step: OnStep | None
    ) -> Video:
        base = self.base
        delta.meta.origin.check(base)
        x = self._start(delta, latents, config)
        delta.apply(self.net)
        start = latents.inverted_to(base.scheduler_config) if latents is not None else None
        ddim = DDIM(base.scheduler_config, config.num_inference_steps, start, even=config.scheduler != "ddim")

        def steps(share: float) -> int:
            return round(share * len(ddim.timesteps))

        guided = range(*map(steps, config.guidance_interval)) if config.guidance_scale > 1 else range(0)
        retraced = steps(1 - config.strength) if latents is not None else 0
        step = solver(ddim, config.scheduler, first=retraced)  # what is retraced was inverted by DDIM
        source = latents.tensor.to(x) if latents is not None else x
        injected = steps(config.feature_injection) if latents is not None else 0
        empty, text = base.encode_text([""]), base.encode_text([config.negative_prompt, prompt] if guided else [prompt])
        cache = FeatureCache(self.net, config.cache_interval)
        watch = FiniteWatch("sampling", base.dtype, at_once=base.device.type == "cpu")
        for i, t in enumerate(ddim.timesteps):
            began = time.perf_counter()
            asked = empty if i < retraced else text if i in guided else text[-1:]
            apart = i < injected and (i >= retraced or config.noise_blend > 0)  # or else x itself is the source still
            rows, prompts = [x] * len(asked), asked
            if apart:
                rows, prompts = [source, *rows], torch.cat([empty, asked])
            layers = config.injected_layers if apart else ()
            kind = None if i < retraced else (apart, len(asked))
            with first_row_everywhere(self.net, layers, len(rows)):
                prediction = cache.predict(torch.cat(rows).to(base.dtype), t, prompts, rows=kind)
            if apart:
                source, prediction = ddim.down(source, prediction[:1], t), prediction[1:]
            if len(asked) == 2:
                unconditional, conditional = prediction.float().chunk(2)
                prediction = unconditional + config.guidance_scale * (conditional - unconditional)
            x = (ddim.down if i < retraced else step)(x, prediction, t)
            if not apart:
                source = x
            watch.see(i + 1, x)
            if on_step:
                on_step(Progress("sampling", i + 1, len(ddim.timesteps), seconds=time.perf_counter() - began))
        watch.end()
        return Video(base.decode_latents(x), config.fps or delta.meta.origin.fps, digest(x))

    def _start(self, delta: Delta, latents: Latents | None, config: SampleConfig) -> Tensor:
        """Where denoising starts, `[1, 4, F, h, w]` in fp32."""
        origin, blend = delta.meta.origin, config.noise_blend
        if latents is not None:
            latents.meta.origin.check(self.base)
            made = (latents.meta.origin.num_frames, latents.meta.origin.size)
            asked = (config.num_frames or made[0], config.size or made[1])
            if asked != made:
                raise InvalidConfig(
                    f"the inverted latents hold {made[0]} frames of {made[1][0]}x{made[1][1]}: "
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
    """sha256 over the bytes of latents `[1, 4, F, h, w]` in fp32: the same digest, the same sampling."""
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
