"""Attention over the frames of each position, which reads and writes tokens as they lie.

Replaces a transposition of the tokens, attention over `[B·N, F, C]`, and the transposition back. All frames of one position
and head are in registers at once, forward and backward, so no scores reach memory and backward computes them anew.

Exactness: scores, softmax and sums in fp32; the products' factors in the tensors' own type, as flash attention has them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import scaled_dot_product_attention

from tav.kernels.softmax import block_side, fits, upcast
from tav.kernels.switch import triton_takes

try:
    import triton
    import triton.language as tl

    from tav.kernels.softmax import factor, softmax_of_scores
except ImportError:  # where torch brings none
    triton = None

MAX_BLOCK_BYTES = 16 << 10
"""Of one position's queries, keys, values or gradients: four such blocks, and their products, are in use at once."""


def can_use_temporal_attention(query: Tensor, num_frames: int, heads: int) -> bool:
    """Return whether `temporal_attention` takes queries `[B·F, N, C]` with so many frames and heads."""
    return triton_takes(query) and fits(num_frames, query.shape[-1] // heads, query.itemsize, MAX_BLOCK_BYTES)


def temporal_attention(query: Tensor, key: Tensor, value: Tensor, num_frames: int, heads: int, scale: float) -> Tensor:
    """Let each position's frames attend to each other: `[B·F, N, C]` three times -> `[B·F, N, C]`, differentiable once."""
    out: Tensor = _TemporalAttention.apply(query, key, value, num_frames, heads, scale)
    return out


def plain_temporal_attention(query: Tensor, key: Tensor, value: Tensor, num_frames: int, heads: int, scale: float) -> Tensor:
    """Compute the same in torch."""

    def over_time(x: Tensor) -> Tensor:  # [B·F, N, C] -> [B·N, heads, F, D]
        return x.unflatten(0, (-1, num_frames)).transpose(1, 2).flatten(0, 1).unflatten(-1, (heads, -1)).transpose(1, 2)

    out = scaled_dot_product_attention(over_time(query), over_time(key), over_time(value), scale=scale)
    return out.transpose(1, 2).flatten(2).unflatten(0, (-1, query.shape[1])).transpose(1, 2).flatten(0, 1)


class _TemporalAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, num_frames: int, heads: int, scale: float) -> Tensor:
        query, key, value = (tensor.contiguous() for tensor in (query, key, value))
        out = torch.empty_like(query)
        grid, sizes = _layout(query, num_frames, heads)
        _forward_kernel[grid](query, key, value, out, scale, *sizes, num_warps=2)
        ctx.save_for_backward(query, key, value)
        ctx.num_frames, ctx.heads, ctx.scale = num_frames, heads, scale
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value = ctx.saved_tensors
        gradients = [torch.empty_like(query) for _ in range(3)]
        grid, sizes = _layout(query, ctx.num_frames, ctx.heads)
        _backward_kernel[grid](query, key, value, gradient.contiguous(), *gradients, ctx.scale, *sizes, num_warps=4)
        return *gradients, None, None, None


def _layout(query: Tensor, num_frames: int, heads: int) -> tuple[tuple[int, int], tuple[int, ...]]:
    """Return the grid (positions of all videos, heads), and what the kernels know of sizes."""
    positions, channels = query.shape[1], query.shape[2]
    width = channels // heads
    blocks = [block_side(size) for size in (num_frames, width)]
    return (len(query) // num_frames * positions, heads), (positions, channels, num_frames, width, *blocks, upcast())


if triton is not None:

    @triton.jit
    def _tokens(positions, channels, frames, width, BLOCK_F: tl.constexpr, BLOCK_D: tl.constexpr):  # type: ignore[no-untyped-def]
        """Where the tokens of one position and head lie, `[F, D]`, and which of them exist."""
        place, head = tl.program_id(0), tl.program_id(1)
        f, d = tl.arange(0, BLOCK_F), tl.arange(0, BLOCK_D)
        row = (place // positions * frames + f).to(tl.int64) * positions + place % positions
        at = row[:, None] * channels + head * width + d[None, :]
        return at, (f < frames)[:, None] & (d < width)[None, :]

    @triton.jit
    def _forward_kernel(  # type: ignore[no-untyped-def]
        query, key, value, out, scale, positions, channels, frames, width, BLOCK_F: tl.constexpr, BLOCK_D: tl.constexpr,
        UPCAST: tl.constexpr,
    ):  # fmt: skip
        at, here = _tokens(positions, channels, frames, width, BLOCK_F, BLOCK_D)
        q, k = factor(query, at, here, UPCAST), factor(key, at, here, UPCAST)
        v = factor(value, at, here, UPCAST)
        weights = softmax_of_scores(q, k, scale, frames, BLOCK_F)
        result = tl.dot(weights.to(v.dtype), v, input_precision="ieee")
        tl.store(out + at, result.to(out.dtype.element_ty), mask=here)

    @triton.jit
    def _backward_kernel(  # type: ignore[no-untyped-def]
        query, key, value, gradient, of_query, of_key, of_value, scale, positions, channels, frames, width,
        BLOCK_F: tl.constexpr, BLOCK_D: tl.constexpr, UPCAST: tl.constexpr,
    ):  # fmt: skip
        at, here = _tokens(positions, channels, frames, width, BLOCK_F, BLOCK_D)
        q, k = factor(query, at, here, UPCAST), factor(key, at, here, UPCAST)
        v, g = factor(value, at, here, UPCAST), factor(gradient, at, here, UPCAST)
        weights = softmax_of_scores(q, k, scale, frames, BLOCK_F)
        result = tl.dot(tl.trans(weights.to(g.dtype)), g, input_precision="ieee")
        tl.store(of_value + at, result.to(of_value.dtype.element_ty), mask=here)
        slope = tl.dot(g, tl.trans(v), input_precision="ieee")
        slope = weights * (slope - tl.sum(weights * slope, 1)[:, None]) * scale
        result = tl.dot(slope.to(k.dtype), k, input_precision="ieee")
        tl.store(of_query + at, result.to(of_query.dtype.element_ty), mask=here)
        result = tl.dot(tl.trans(slope.to(q.dtype)), q, input_precision="ieee")
        tl.store(of_key + at, result.to(of_key.dtype.element_ty), mask=here)
