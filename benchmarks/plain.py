"""The published algorithm, plainly: what `benchmarks/method.py` compares with.

The same mathematics and the same parameters as `tav`, computed the way the public implementation does without its optional
attention library: activations live as `[B, C, F, h, w]`, so every convolution copies them into a batch of frames and back;
each frame's keys and values are gathered by index and concatenated; attention scores are materialised, softmaxed and
multiplied; the prompt's keys and values are computed once per frame; the clip goes through the VAE, and its caption through
the text encoder, in every step; the optimizer is given all parameters; frames are decoded one at a time.
"""

from __future__ import annotations

import numpy as np
import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from tav.attention import VideoContext, VideoTransformerBlock, project_out
from tav.base import Base
from tav.clip import Clip
from tav.config import Progress, TuneConfig
from tav.ddim import DDIM, forward_diffusion
from tav.inflation import VideoUNet, inflate, is_tuned
from tav.tuning import OnStep, draw_step
from tav.video import Frames


class _FramesCopied(nn.Module):
    """A 2-D convolution on `[B, C, F, h, w]` activations: into a batch of frames, and back."""

    def __init__(self, conv: nn.Conv2d, context: VideoContext) -> None:
        super().__init__()
        self.conv, self.context = conv, context

    def forward(self, x: Tensor) -> Tensor:
        video = x.unflatten(0, (-1, self.context.num_frames)).transpose(1, 2).contiguous()  # how it is kept
        out = self.conv(video.transpose(1, 2).flatten(0, 1))
        return out.unflatten(0, (-1, self.context.num_frames)).transpose(1, 2).contiguous().transpose(1, 2).flatten(0, 1)


def _attend(attn: Attention, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    q, k, v = (t.unflatten(-1, (attn.heads, -1)).transpose(1, 2).flatten(0, 1) for t in (query, key, value))
    bias = torch.empty(q.shape[0], q.shape[1], k.shape[1], dtype=q.dtype, device=q.device)
    scores = torch.baddbmm(bias, q, k.transpose(1, 2), beta=0, alpha=attn.scale)
    out = torch.bmm(scores.softmax(-1).to(v.dtype), v)
    return out.unflatten(0, (-1, attn.heads)).transpose(1, 2).flatten(2)


class _PlainBlock(VideoTransformerBlock):
    def forward(
        self, hidden_states: Tensor, attention_mask: None = None, encoder_hidden_states: Tensor | None = None, *_, **__
    ) -> Tensor:
        assert encoder_hidden_states is not None
        x, frames = hidden_states, self.context.num_frames
        x = x + self._sparse_causal(self.norm1(x), frames)
        text = encoder_hidden_states.repeat_interleave(frames, 0)
        y = self.norm2(x)
        x = x + project_out(self.attn2, _attend(self.attn2, self.attn2.to_q(y), self.attn2.to_k(text), self.attn2.to_v(text)))
        x = x + self.ff(self.norm3(x))
        t = self.norm_temp(x).unflatten(0, (-1, frames)).transpose(1, 2).flatten(0, 1)
        a = self.attn_temp
        t = project_out(a, _attend(a, a.to_q(t), a.to_k(t), a.to_v(t)))
        return x + t.unflatten(0, (-1, x.shape[1])).transpose(1, 2).flatten(0, 1)

    def _sparse_causal(self, x: Tensor, frames: int) -> Tensor:
        attn = self.attn1
        former = torch.arange(frames, device=x.device) - 1
        former[0] = 0

        def gathered(t: Tensor) -> Tensor:
            t = t.unflatten(0, (-1, frames))
            return torch.cat([t[:, [0] * frames], t[:, former]], dim=2).flatten(0, 1)

        return project_out(attn, _attend(attn, attn.to_q(x), gathered(attn.to_k(x)), gathered(attn.to_v(x))))


def plain_net(base: Base, group_norm: str = "video") -> VideoUNet:
    """The same network as `tav.inflate` makes, its parameters its own where they are tuned."""
    net = inflate(base.unet, group_norm=group_norm)  # type: ignore[arg-type]
    for module in list(net.modules()):
        if isinstance(module, _FramesCopied):
            continue
        for name, child in list(module.named_children()):
            if isinstance(child, VideoTransformerBlock):
                child.__class__ = _PlainBlock
            elif isinstance(child, nn.Conv2d):
                setattr(module, name, _FramesCopied(child, net.context))
    return net


def mixed(base: Base) -> torch.autocast:
    """Mixed precision, as the public implementation has it; off for fp32."""
    return torch.autocast(base.device.type, dtype=base.dtype, enabled=base.dtype != torch.float32)


class PlainTuner:
    """Tuning."""

    def __init__(self, base: Base, clip: Clip, config: TuneConfig, group_norm: str) -> None:
        self.base, self.clip, self.config = base, clip, config
        self.net = plain_net(base, group_norm)
        self.add_noise = forward_diffusion(base.scheduler_config)
        for name, parameter in self.net.named_parameters():
            if is_tuned(name):
                parameter.data = parameter.data.float()
                parameter.requires_grad_(True)
        self.net.train()
        self.optimizer = torch.optim.AdamW(
            self.net.parameters(), config.learning_rate, config.betas, config.eps, config.weight_decay
        )

    def tune(self, on_step: OnStep) -> None:
        for i in range(self.config.steps):
            on_step(Progress("tuning", i + 1, self.config.steps, self._step(i)))

    def _step(self, i: int) -> float:
        base = self.base
        mean, std = base.encode_frames(self.clip.frames)
        text = base.encode_text([self.clip.caption])
        (of_posterior, noise), t = draw_step(mean, base.scheduler_config["num_train_timesteps"], self.config.seed, i)
        noised, target = self.add_noise(mean + std * of_posterior, noise, t)
        with mixed(base):
            prediction = self.net(noised.to(base.dtype), t, text)
        loss = mse_loss(prediction.float(), target.float())
        loss.backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), self.config.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item()


@torch.inference_mode()
def plain_invert(base: Base, net: VideoUNet, clip: Clip, steps: int, on_step: OnStep) -> Tensor:
    """Inverted latents `[1, 4, F, h, w]`."""
    ddim = DDIM(base.scheduler_config, steps)
    text, x = base.encode_text([""]), base.encode_frames(clip.frames)[0].float()
    for i, t in enumerate(reversed(ddim.timesteps)):
        with mixed(base):
            prediction = net(x.to(base.dtype), t, text)
        x = ddim.up(x, prediction, t)
        on_step(Progress("inverting", i + 1, len(ddim.timesteps)))
    return x


@torch.inference_mode()
def plain_sample(base: Base, net: VideoUNet, x: Tensor, prompt: str, guidance: float, steps: int, on_step: OnStep) -> Tensor:
    """Guided DDIM from `[1, 4, F, h, w]`."""
    ddim = DDIM(base.scheduler_config, steps)
    text = base.encode_text(["", prompt])
    for i, t in enumerate(ddim.timesteps):
        with mixed(base):
            unconditional, conditional = net(x.to(base.dtype).expand(2, -1, -1, -1, -1), t, text).float().chunk(2)
        x = ddim.down(x, unconditional + guidance * (conditional - unconditional), t)
        on_step(Progress("sampling", i + 1, len(ddim.timesteps)))
    return x


@torch.inference_mode()
def plain_decode(base: Base, latents: Tensor) -> Frames:
    """One frame at a time through the VAE."""
    return np.concatenate([base.decode_latents(latents[:, :, i : i + 1]) for i in range(latents.shape[2])])
