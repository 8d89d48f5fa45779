"""Spatio-temporal attention (Tune-A-Video §3.2) inside Stable Diffusion's transformer blocks.

ST-Attn replaces each block's self-attention. Frame i asks; which frames answer is the mode:

    sparse_causal   the first frame and frame i-1 (Eq. 3); cost grows with 2·F·N², not (F·N)²
    causal          frames 0 … i
    full            all frames
    frame           frame i alone, which is the base's own self-attention

Temporal attention is new: self-attention over frames at each position, after the feed-forward layer.
Tokens are `[B·F, N, C]`, frames of one clip adjacent.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from tav.config import AttentionMode, GroupNormMode
from tav.errors import InvalidConfig
from tav.kernels.cross_attention import can_use_cross_attention
from tav.kernels.cross_attention import cross_attention as prompt_attention
from tav.kernels.small_head_attention import can_use_small_head_attention, small_head_attention
from tav.kernels.sparse_attention import can_use_sparse_attention, plain_sparse_attention, sparse_attention
from tav.kernels.switch import wants_channels_last
from tav.kernels.temporal_attention import can_use_temporal_attention
from tav.kernels.temporal_attention import temporal_attention as frame_attention


@dataclass
class VideoContext:
    """What every inflated layer of one network must know; the layers share this one object."""

    num_frames: int = 1
    """Frames of one clip that lie adjacent in the folded batch; set by each call of the network."""
    attention: AttentionMode = "sparse_causal"
    group_norm: GroupNormMode = "video"
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False, compare=False)
    _holder: int | None = field(default=None, init=False, repr=False, compare=False)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the network for this thread; others wait for their turn.

        Raises:
            InvalidConfig: it is this thread's already, which would wait for itself.
        """
        if self._holder == threading.get_ident():
            raise InvalidConfig(
                "this network is at work: its on_step may not tune, invert or sample with it; use another network"
            )
        with self._lock:
            self._holder = threading.get_ident()
            try:
                yield
            finally:
                self._holder = None


def first_and_previous(x: Tensor, num_frames: int) -> Tensor:
    """Gather the tokens that answer each frame in sparse-causal attention.

    Args:
        x: `[B·F, N, C]`.
        num_frames: F ≥ 1.

    Returns:
        `[B·F, 2N, C]`: the first frame's tokens, then the previous frame's. Frame 0 gets itself twice.
    """
    frames = x.unflatten(0, (-1, num_frames))  # [B, F, N, C]
    previous = torch.cat([frames[:, :1], frames[:, :-1]], dim=1)
    first = frames[:, :1].expand_as(frames)
    return torch.cat([first, previous], dim=2).flatten(0, 1)


def attend(attn: Attention, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attend with `attn`'s heads and scale: `[B, Nq, C]`, `[B, Nk, C]`, `[B, Nk, C]` -> `[B, Nq, C]`."""
    if can_use_small_head_attention(query, attn.heads):
        return small_head_attention(query, key, value, attn.heads, attn.scale)
    q, k, v = (t.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for t in (query, key, value))
    if attn.upcast_attention:  # SD2.1's logits overflow fp16
        q, k, v = q.float(), k.float(), v.float()
    out = scaled_dot_product_attention(q, k, v, scale=attn.scale)
    return out.transpose(1, 2).flatten(2).to(query.dtype)


def project_out(attn: Attention, x: Tensor) -> Tensor:
    """Apply `attn`'s output projection and dropout."""
    for layer in attn.to_out:
        x = layer(x)
    return x


def spatio_temporal_attention(attn: Attention, x: Tensor, num_frames: int, mode: AttentionMode) -> Tensor:
    """Apply ST-Attn to tokens `[B·F, N, C]`; keys and values are projected once per frame, then shared."""
    q, k, v = attn.to_q(x), attn.to_k(x), attn.to_v(x)
    if mode == "frame":
        out = attend(attn, q, k, v)
    elif mode == "sparse_causal":
        out = _sparse_causal(attn, q, k, v, num_frames)
    else:
        tokens = x.shape[1]
        q, k, v = (t.unflatten(0, (-1, num_frames)).flatten(1, 2) for t in (q, k, v))  # [B, F·N, C]
        if mode == "full":
            out = attend(attn, q, k, v)
        else:  # one frame at a time: the mask of all frames would hold (F·N)² entries
            ends = range(tokens, tokens * num_frames + 1, tokens)
            out = torch.cat([attend(attn, q[:, e - tokens : e], k[:, :e], v[:, :e]) for e in ends], dim=1)
        out = out.unflatten(1, (num_frames, -1)).flatten(0, 1)
    return project_out(attn, out)


def _sparse_causal(attn: Attention, query: Tensor, key: Tensor, value: Tensor, num_frames: int) -> Tensor:
    if not torch.compiler.is_compiling() and can_use_sparse_attention(query, attn.heads):
        return sparse_attention(query, key, value, num_frames, attn.heads, attn.scale)
    if wants_channels_last(query.device) and not attn.upcast_attention:
        return plain_sparse_attention(query, key, value, num_frames, attn.heads, attn.scale)
    return attend(attn, query, first_and_previous(key, num_frames), first_and_previous(value, num_frames))


def cross_attention(attn: Attention, x: Tensor, text: Tensor) -> Tensor:
    """Let tokens `[B·F, N, C]` attend to the prompt `[B, L, D]`, whose keys and values serve all frames."""
    q = attn.to_q(x).unflatten(0, (text.shape[0], -1)).flatten(1, 2)  # [B, F·N, C]
    k, v = attn.to_k(text), attn.to_v(text)
    if not torch.compiler.is_compiling() and can_use_cross_attention(q, k, v, attn.heads):
        out = prompt_attention(q, k, v, attn.heads, attn.scale)
    else:
        out = attend(attn, q, k, v)
    return project_out(attn, out.unflatten(1, (-1, x.shape[1])).flatten(0, 1))


def temporal_attention(attn: Attention, x: Tensor, num_frames: int) -> Tensor:
    """Attend over frames at each position; tokens `[B·F, N, C]` in and out."""
    if not torch.compiler.is_compiling() and can_use_temporal_attention(x, num_frames, attn.heads):
        q, k, v = attn.to_q(x), attn.to_k(x), attn.to_v(x)
        return project_out(attn, frame_attention(q, k, v, num_frames, attn.heads, attn.scale))
    over_time = x.unflatten(0, (-1, num_frames)).transpose(1, 2).flatten(0, 1)  # [B·N, F, C]
    over_time = over_time.contiguous()  # or torch would multiply position by position
    out = attend(attn, attn.to_q(over_time), attn.to_k(over_time), attn.to_v(over_time))
    out = project_out(attn, out)
    return out.unflatten(0, (-1, x.shape[1])).transpose(1, 2).flatten(0, 1)


class VideoTransformerBlock(nn.Module):
    """A base's transformer block with ST-Attn for self-attention and temporal attention at its end.

    The base's layers keep their names; `norm_temp` and `attn_temp` are new.
    """

    def __init__(self, block: BasicTransformerBlock, context: VideoContext) -> None:
        super().__init__()
        if block.norm_type != "layer_norm" or block.attn2 is None or block.pos_embed is not None:
            raise InvalidConfig("this base's transformer blocks are not Stable Diffusion 1.x/2.x blocks: use such a base")
        self.context = context
        self.norm1, self.attn1 = block.norm1, block.attn1
        self.norm2, self.attn2 = block.norm2, block.attn2
        self.norm3, self.ff = block.norm3, block.ff
        width = block.attn1.query_dim
        self.norm_temp = nn.LayerNorm(width)
        heads = block.attn1.heads
        self.attn_temp = Attention(
            width, heads=heads, dim_head=block.attn1.inner_dim // heads, upcast_attention=block.attn1.upcast_attention
        )

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: None = None,
        encoder_hidden_states: Tensor | None = None,
        *_: Any,
        **__: Any,
    ) -> Tensor:
        """Map tokens `[B·F, N, C]` and a prompt `[B, L, D]` to `[B·F, N, C]`. The signature is the base's block's."""
        assert encoder_hidden_states is not None
        x, num_frames = hidden_states, self.context.num_frames
        x = x + spatio_temporal_attention(self.attn1, self.norm1(x), num_frames, self.context.attention)
        x = x + cross_attention(self.attn2, self.norm2(x), encoder_hidden_states)
        x = x + self.ff(self.norm3(x))
        return x + temporal_attention(self.attn_temp, self.norm_temp(x), num_frames)
