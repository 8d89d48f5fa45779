"""Attention to the prompt, whose backward is for the queries alone.

Prompts and their projections are frozen, so keys and values need no gradient; torch's kernels compute all three. A prompt's
keys fit in registers, so no scores reach memory and backward computes them anew.

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

MAX_BLOCK_BYTES = 32 << 10
"""Of one head's keys or values, which a program holds both."""
_QUERIES = 64
"""Of one program."""


def can_use_cross_attention(query: Tensor, key: Tensor, value: Tensor, heads: int) -> bool:
    """Return whether `cross_attention` takes `[B, M, C]` queries of `[B, L, C]` keys: few, and both frozen."""
    frozen = not key.requires_grad and not value.requires_grad
    width = query.shape[-1] // heads
    return frozen and triton_takes(query, key, value) and fits(key.shape[1], width, key.itemsize, MAX_BLOCK_BYTES)


def cross_attention(query: Tensor, key: Tensor, value: Tensor, heads: int, scale: float) -> Tensor:
    """Let `[B, M, C]` queries attend to `[B, L, C]` keys and values -> `[B, M, C]`, with a gradient for the queries."""
    out: Tensor = _CrossAttention.apply(query, key, value, heads, scale)
    return out


def plain_cross_attention(query: Tensor, key: Tensor, value: Tensor, heads: int, scale: float) -> Tensor:
    """Compute the same in torch."""
    q, k, v = (tensor.unflatten(-1, (heads, -1)).transpose(1, 2) for tensor in (query, key, value))
    return scaled_dot_product_attention(q, k, v, scale=scale).transpose(1, 2).flatten(2)


class _CrossAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, heads: int, scale: float) -> Tensor:
        query, key, value = (tensor.contiguous() for tensor in (query, key, value))
        out = torch.empty_like(query)
        grid, sizes = _layout(query, key, heads)
        _forward_kernel[grid](query, key, value, out, scale, *sizes)
        ctx.save_for_backward(query, key, value)
        ctx.heads, ctx.scale = heads, scale
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value = ctx.saved_tensors
        out = torch.empty_like(query)
        grid, sizes = _layout(query, key, ctx.heads)
        _backward_kernel[grid](query, key, value, gradient.contiguous(), out, ctx.scale, *sizes)
        return out, None, None, None, None


def _layout(query: Tensor, key: Tensor, heads: int) -> tuple[tuple[int, int, int], tuple[int, ...]]:
    """Return the grid (blocks of queries, prompts, heads), and what the kernels know of sizes."""
    batch, queries, channels = query.shape
    keys, width = key.shape[1], channels // heads
    blocks = [block_side(size) for size in (keys, width)]
    return (triton.cdiv(queries, _QUERIES), batch, heads), (queries, keys, channels, width, _QUERIES, *blocks, upcast())


if triton is not None:

    @triton.jit
    def _places(queries, keys, channels, width, BLOCK_M: tl.constexpr, BLOCK_L: tl.constexpr, BLOCK_D: tl.constexpr):  # type: ignore[no-untyped-def]
        """Where one block's queries lie, and the prompt's keys, each with which of them exist."""
        batch, head = tl.program_id(1), tl.program_id(2)
        m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
        n, d = tl.arange(0, BLOCK_L), tl.arange(0, BLOCK_D)
        column = head * width + d[None, :]
        of_queries = (batch.to(tl.int64) * queries + m)[:, None] * channels + column
        of_keys = (batch.to(tl.int64) * keys + n)[:, None] * channels + column
        inside = (d < width)[None, :]
        return of_queries, (m < queries)[:, None] & inside, of_keys, (n < keys)[:, None] & inside

    @triton.jit
    def _forward_kernel(  # type: ignore[no-untyped-def]
        query, key, value, out, scale, queries, keys, channels, width,
        BLOCK_M: tl.constexpr, BLOCK_L: tl.constexpr, BLOCK_D: tl.constexpr, UPCAST: tl.constexpr,
    ):  # fmt: skip
        at, here, key_at, key_here = _places(queries, keys, channels, width, BLOCK_M, BLOCK_L, BLOCK_D)
        q, k = factor(query, at, here, UPCAST), factor(key, key_at, key_here, UPCAST)
        v = factor(value, key_at, key_here, UPCAST)
        result = tl.dot(softmax_of_scores(q, k, scale, keys, BLOCK_L).to(v.dtype), v, input_precision="ieee")
        tl.store(out + at, result.to(out.dtype.element_ty), mask=here)

    @triton.jit
    def _backward_kernel(  # type: ignore[no-untyped-def]
        query, key, value, gradient, of_query, scale, queries, keys, channels, width,
        BLOCK_M: tl.constexpr, BLOCK_L: tl.constexpr, BLOCK_D: tl.constexpr, UPCAST: tl.constexpr,
    ):  # fmt: skip
        at, here, key_at, key_here = _places(queries, keys, channels, width, BLOCK_M, BLOCK_L, BLOCK_D)
        q, k = factor(query, at, here, UPCAST), factor(key, key_at, key_here, UPCAST)
        v, g = factor(value, key_at, key_here, UPCAST), factor(gradient, at, here, UPCAST)
        weights = softmax_of_scores(q, k, scale, keys, BLOCK_L)
        slope = tl.dot(g, tl.trans(v), input_precision="ieee")
        slope = weights * (slope - tl.sum(weights * slope, 1)[:, None]) * scale
        result = tl.dot(slope.to(k.dtype), k, input_precision="ieee")
        tl.store(of_query + at, result.to(of_query.dtype.element_ty), mask=here)
