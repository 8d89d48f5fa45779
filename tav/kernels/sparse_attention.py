"""Sparse-causal attention by flash-attn-4, where it is installed (`pip install tav[gpu]`) and the GPU is a Hopper or Blackwell.

Frames 0 and 1 see frame 0 twice in the paper's Eq. 3. Doubled keys cancel in the softmax, so these frames get N keys here;
all others get the first frame's and the previous frame's, 2N. Backward is deterministic.

Exactness: flash-attn-4 differs from fp32 by 2.3e-3 of the result in bf16, as cuDNN's attention does.
"""

from __future__ import annotations

import logging
from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from tav.kernels.switch import kernels_enabled

log = logging.getLogger(__name__)

_ARCHITECTURES = (9, 10)
"""Major compute capabilities that flash-attn-4 compiles for."""
_WIDEST = {9: 256, 10: 128}


def can_use_sparse_attention(query: Tensor, heads: int) -> bool:
    """Return whether `sparse_attention` takes queries `[B·F, N, C]`: bf16 or fp16, on such a GPU, heads of a width it has."""
    if query.device.type != "cuda" or query.dtype not in (torch.bfloat16, torch.float16):
        return False
    major, width = torch.cuda.get_device_capability(query.device)[0], query.shape[-1] // heads
    return major in _ARCHITECTURES and width % 8 == 0 and width <= _WIDEST[major] and _flash() is not None


def sparse_attention(query: Tensor, key: Tensor, value: Tensor, num_frames: int, heads: int, scale: float) -> Tensor:
    """Let each frame's tokens attend to the first and the previous frame's.

    Args:
        query: `[B·F, N, C]`.
        key: `[B·F, N, C]`, of the frames themselves.
        value: `[B·F, N, C]`.
        num_frames: F.
        heads: that C is divided into.
        scale: of the scores.

    Returns:
        `[B·F, N, C]`, differentiable once.
    """
    out, _ = _sparse_attention(query.contiguous(), key.contiguous(), value.contiguous(), num_frames, heads, scale)
    return out


def plain_sparse_attention(query: Tensor, key: Tensor, value: Tensor, num_frames: int, heads: int, scale: float) -> Tensor:
    """Compute the same in torch, by whatever attention it has for the device."""
    q, k, v = (x.unflatten(0, (-1, num_frames)).unflatten(-1, (heads, -1)) for x in (query, key, value))  # [B, F, N, H, D]
    parts = []
    for frames, keys, values in _parts(k, v):
        q_heads, k_heads, v_heads = (x.flatten(0, 1).transpose(1, 2) for x in (q[:, frames], keys, values))
        out = scaled_dot_product_attention(q_heads, k_heads, v_heads, scale=scale).transpose(1, 2)
        parts.append(out.unflatten(0, (len(q), -1)))
    return torch.cat(parts, 1).flatten(3).flatten(0, 1)


def _parts(key: Tensor, value: Tensor) -> list[tuple[slice, Tensor, Tensor]]:
    """Return the frames that share a number of keys, with their keys and values `[B, f, n, H, D]`."""
    num_frames = key.shape[1]
    few = min(2, num_frames)
    first = [x[:, :1].expand(-1, num_frames, -1, -1, -1) for x in (key, value)]
    parts = [(slice(0, few), first[0][:, :few], first[1][:, :few])]
    if num_frames > 2:
        both = [torch.cat([one[:, 2:], x[:, 1:-1]], dim=2) for one, x in zip(first, (key, value), strict=True)]
        parts.append((slice(2, num_frames), both[0], both[1]))
    return parts


@cache
def _flash() -> ModuleType | None:
    """flash-attn-4's functions without their autograd, which would end a compiled graph; None: torch's attention has to do."""
    if not kernels_enabled():
        return None
    try:
        from flash_attn.cute import interface
    except ImportError as error:
        log.info("ST-Attn runs by torch's attention: flash-attn-4 is not installed (%s)", error)
        return None
    log.info("ST-Attn runs by flash-attn-4")
    return interface  # type: ignore[no-any-return]


@torch.library.custom_op("tav::sparse_attention", mutates_args=())
def _sparse_attention(
    query: Tensor, key: Tensor, value: Tensor, num_frames: int, heads: int, scale: float
) -> tuple[Tensor, Tensor]:
    """Return the result `[B·F, N, C]`, and the scores' logarithmic sums `[B·F, H, N]` for backward."""
    flash = _flash()
    assert flash is not None
    q, k, v = (x.view(-1, num_frames, *x.shape[1:]).unflatten(-1, (heads, -1)) for x in (query, key, value))
    out, sums = torch.empty_like(q), q.new_empty(*q.shape[:2], heads, q.shape[2], dtype=torch.float32)
    for frames, keys, values in _parts(k, v):
        for video in range(len(q)):  # so that results are written to where they belong
            flash._flash_attn_fwd(
                q[video, frames],
                keys[video].contiguous(),
                values[video].contiguous(),
                softmax_scale=scale,
                out=out[video, frames],
                lse=sums[video, frames],
                return_lse=True,
            )
    return out.view_as(query), sums.flatten(0, 1)


@_sparse_attention.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, num_frames: int, heads: int, scale: float) -> tuple[Tensor, Tensor]:
    return torch.empty_like(query), query.new_empty(len(query), heads, query.shape[1], dtype=torch.float32)


@torch.library.custom_op("tav::sparse_attention_backward", mutates_args=())
def _backward(
    gradient: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    sums: Tensor,
    num_frames: int,
    heads: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    flash = _flash()
    assert flash is not None
    tensors = (gradient, query, key, value, out)
    g, q, k, v, o = (x.view(-1, num_frames, *x.shape[1:]).unflatten(-1, (heads, -1)) for x in tensors)
    lse = sums.unflatten(0, (-1, num_frames))
    of_query, of_key, of_value = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
    tokens = q.shape[2]
    for frames, keys, values in _parts(k, v):
        for video in range(len(q)):
            gradients = flash._flash_attn_bwd(
                q[video, frames],
                keys[video].contiguous(),
                values[video].contiguous(),
                o[video, frames],
                g[video, frames],
                lse[video, frames],
                softmax_scale=scale,
                deterministic=True,
            )
            of_query[video, frames] = gradients[0]
            for total, part in ((of_key[video], gradients[1]), (of_value[video], gradients[2])):
                total[0] += part[:, :tokens].sum(0)
                if frames.start:
                    total[1:-1] += part[:, tokens:]
    return of_query.view_as(query), of_key.view_as(key), of_value.view_as(value)


@_backward.register_fake
def _(gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    query, key, value, ctx.num_frames, ctx.heads, ctx.scale = inputs
    ctx.save_for_backward(query, key, value, *output)


def _differentiate(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    query, key, value, out, sums = ctx.saved_tensors
    gradients = _backward(gradient.contiguous(), query, key, value, out, sums, ctx.num_frames, ctx.heads, ctx.scale)
    return *gradients, None, None, None


_sparse_attention.register_autograd(_differentiate, setup_context=_save)
