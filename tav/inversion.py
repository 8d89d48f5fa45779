"""DDIM inversion of the clip under the tuned network (Tune-A-Video §3.4): empty prompt, no guidance."""

from __future__ import annotations

import time

import torch

from tav.base import Base
from tav.clip import Clip
from tav.config import InvertConfig, Progress
from tav.ddim import DDIM
from tav.delta import Delta, Origin
from tav.inflation import VideoUNet, inflate
from tav.latents import Latents, LatentsMeta
from tav.precision import FiniteWatch
from tav.tuning import OnStep


@torch.no_grad()
def invert(
    base: Base,
    clip: Clip,
    delta: Delta,
    config: InvertConfig | None = None,
    *,
    on_step: OnStep | None = None,
    net: VideoUNet | None = None,
) -> Latents:
    """Find the noise from which sampling with `delta` gives the clip back.

    Args:
        base: the one `delta` was made with.
        clip: F frames.
        delta: the tuned tensors.
        config: steps; without it the base's recommended ones.
        on_step: called after every step; what it raises stops the work.
        net: a network inflated from `base` to use instead of a new one, when it is free; its tuned tensors are overwritten.

    Returns:
        Latents `[1, 4, F, h, w]`.

    Raises:
        BaseMismatch: `delta` was made with another base.
        NanLoss: the network's or the VAE's arithmetic overflowed.
    """
    config = config or base.invert_config()
    delta.meta.origin.check(base)
    net = net or inflate(base.unet)
    with net.context.alone():
        return _invert(base, clip, delta, config, on_step, net)


def _invert(base: Base, clip: Clip, delta: Delta, config: InvertConfig, on_step: OnStep | None, net: VideoUNet) -> Latents:
    delta.apply(net)
    ddim = DDIM(base.scheduler_config, config.num_inference_steps)
    text = base.encode_text([""])
    x = base.encode_frames(clip.frames)[0].float()
    watch = FiniteWatch("inversion", base.dtype, at_once=base.device.type == "cpu")
    for i, t in enumerate(reversed(ddim.timesteps)):
        began = time.perf_counter()
        prediction = net(x.to(base.dtype), t, text)
        x = ddim.up(x, prediction, t)
        watch.see(i + 1, x)
        if on_step:
            on_step(Progress("inverting", i + 1, len(ddim.timesteps), seconds=time.perf_counter() - began))
    watch.end()
    return Latents(x.cpu(), LatentsMeta(origin=Origin.of(base, clip), invert=config))
