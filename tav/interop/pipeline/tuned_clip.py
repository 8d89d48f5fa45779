"""What Stable Diffusion was tuned to on one clip (Tune-A-Video, arXiv 2212.11565), as a component of a diffusers pipeline.

Its weights are the tuned tensors (query projections, and the temporal attention at the end of each transformer block) and
`latents`, the clip's DDIM-inverted noise. `attach` makes a text-to-image UNet a video network of them;
its calls then take `[B·F, 4, h, w]`, frames of one video adjacent, and text `[B, L, D]`.
"""

from functools import partial
from pathlib import Path

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from safetensors.torch import load_file
from torch import nn
from torch.nn.functional import group_norm, layer_norm, scaled_dot_product_attention


class TunedClip(ModelMixin, ConfigMixin):
    """The tuned tensors, the inverted latents, and what the clip was."""

    @register_to_config
    def __init__(
        self,
        attention="sparse_causal",
        group_norm="video",
        caption="",
        num_frames=32,
        size=(512, 512),
        fps=8.0,
        inversion_steps=50,
        num_inference_steps=50,
        guidance_scale=12.5,
        guidance_interval=(0.0, 1.0),
        strength=1.0,
        feature_injection=0.0,
        injected_layers=(),
    ):
        super().__init__()
        self.video_length = num_frames  # of the call of the UNet that is running
        self.temporal = nn.ModuleDict()
        self.latents = None  # [1, 4, F, h, w]
        self.queries = {}
        self.unet = []  # in a list, so that it does not become a submodule

    @classmethod
    def from_pretrained(cls, folder, torch_dtype=None, **_):
        folder = Path(folder)
        clip = cls.from_config(cls.load_config(folder))
        delta = load_file(folder / "diffusion_pytorch_model.safetensors")
        if "latents" in delta:
            clip.latents = delta.pop("latents").float()
        clip.queries = {name: tensor for name, tensor in delta.items() if ".attn_temp." not in name}
        for block in sorted({name.split(".attn_temp.")[0] for name in delta if ".attn_temp." in name}):
            tensors = {name.split(".attn_temp.")[1]: t for name, t in delta.items() if name.startswith(f"{block}.attn_temp.")}
            clip.temporal[_key(block)] = TemporalAttention(tensors)
        clip.temporal.to(torch_dtype or torch.float32)
        return clip.eval().requires_grad_(False)

    def save_pretrained(self, *_, **__):
        raise NotImplementedError("A tuned clip is not saved again: copy the folder that it came from.")

    @torch.no_grad()
    def attach(self, unet):
        """Make `unet` a video network with this clip's delta, for good."""
        if any(known is unet for known in self.unet):
            return
        if getattr(unet, "tuned_clip", None) is not None:
            raise ValueError("This UNet belongs to another tuned clip: load it again.")
        unet.tuned_clip = self.config.caption
        self.unet.append(unet)
        for name, module in unet.named_modules():
            if isinstance(module, BasicTransformerBlock):
                module.attn1.to_q.weight.copy_(self.queries[f"{name}.attn1.to_q.weight"])
                module.attn2.to_q.weight.copy_(self.queries[f"{name}.attn2.to_q.weight"])
                module.attn1.set_processor(SpatioTemporalAttention(self))
                module.attn2.set_processor(CrossAttention())
                module.register_forward_hook(partial(self._over_time, self.temporal[_key(name)]))
            elif isinstance(module, ResnetBlock2D) and self.config.group_norm == "video":
                for norm in (module.norm1, module.norm2):
                    norm.forward = partial(self._over_video, norm)
        if self.config.group_norm == "video":
            unet.conv_norm_out.forward = partial(self._over_video, unet.conv_norm_out)

    def _over_time(self, temporal, block, _, tokens):
        return tokens + temporal(tokens, self.video_length, block.attn1.heads)

    def _over_video(self, norm, x):
        video = x.unflatten(0, (-1, self.video_length)).transpose(1, 2)  # [B, C, F, h, w]
        out = group_norm(video, norm.num_groups, norm.weight, norm.bias, norm.eps)
        return out.transpose(1, 2).flatten(0, 1)


class TemporalAttention(nn.Module):
    """Self-attention over frames at each position."""

    def __init__(self, tensors):
        super().__init__()
        inner, width = tensors["to_q.weight"].shape
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, inner, bias=False) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(inner, width)])
        self.load_state_dict(tensors)

    def forward(self, tokens, video_length, heads):
        x = layer_norm(tokens, tokens.shape[-1:])
        x = x.unflatten(0, (-1, video_length)).transpose(1, 2).flatten(0, 1)  # [B·N, F, C]
        x = self.to_out[0](_attend(self.to_q(x), self.to_k(x), self.to_v(x), heads))
        return x.unflatten(0, (-1, tokens.shape[1])).transpose(1, 2).flatten(0, 1)


class SpatioTemporalAttention:
    """In place of self-attention: frame i asks, and the clip's mode says which frames answer."""

    def __init__(self, clip):
        self.clip = clip

    def __call__(self, attn, x, *_, **__):
        frames, mode = self.clip.video_length, self.clip.config.attention
        q, k, v = attn.to_q(x), attn.to_k(x), attn.to_v(x)
        if mode == "sparse_causal":
            k, v = (_first_and_previous(t, frames) for t in (k, v))
        elif mode in ("full", "causal"):
            k, v = (t.unflatten(0, (-1, frames)).flatten(1, 2).repeat_interleave(frames, 0) for t in (k, v))
        settings = (attn.heads, attn.scale, attn.upcast_attention)
        if mode == "causal":  # frame by frame, over the tokens of the frames so far
            ends = [(i, (i % frames + 1) * x.shape[1]) for i in range(len(x))]
            out = torch.cat([_attend(q[i, None], k[i, None, :end], v[i, None, :end], *settings) for i, end in ends])
        else:
            out = _attend(q, k, v, *settings)
        return attn.to_out[1](attn.to_out[0](out))


class CrossAttention:
    """All frames of a video ask one prompt."""

    def __call__(self, attn, x, encoder_hidden_states, *_, **__):
        text = encoder_hidden_states
        q = attn.to_q(x).unflatten(0, (len(text), -1)).flatten(1, 2)  # [B, F·N, C]
        out = _attend(q, attn.to_k(text), attn.to_v(text), attn.heads, attn.scale, attn.upcast_attention)
        return attn.to_out[1](attn.to_out[0](out.unflatten(1, (-1, x.shape[1])).flatten(0, 1)))


def _key(block):
    return block.replace(".", "/")


def _first_and_previous(t, frames):
    video = t.unflatten(0, (-1, frames))  # [B, F, N, C]
    previous = torch.cat([video[:, :1], video[:, :-1]], dim=1)
    return torch.cat([video[:, :1].expand_as(video), previous], dim=2).flatten(0, 1)


def _attend(q, k, v, heads, scale=None, upcast=False):
    dtype = q.dtype
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
    if upcast:
        q, k, v = q.float(), k.float(), v.float()
    return scaled_dot_product_attention(q, k, v, scale=scale).transpose(1, 2).flatten(2).to(dtype)
