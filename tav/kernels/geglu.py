"""GEGLU, the gated activation of the feed-forward layers, in one kernel each way. Replaces diffusers' chunk, GELU and product.

Exactness: GELU with the error function, in fp32, rounded once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from tav.kernels.switch import triton_takes

try:
    import triton
    import triton.language as tl
except ImportError:  # where torch brings none
    triton = None

_BLOCK = 2048


def can_use_geglu(x: Tensor) -> bool:
    """Return whether `geglu` takes `x` `[..., 2·D]`."""
    return x.shape[-1] % 2 == 0 and triton_takes(x)


def geglu(x: Tensor) -> Tensor:
    """Compute `value * gelu(gate)` of `x` `[..., 2·D]`, whose first half is the value: `[..., D]`, differentiable once."""
    out: Tensor = _Geglu.apply(x)
    return out


def plain_geglu(x: Tensor) -> Tensor:
    """Compute the same in torch."""
    value, gate = x.chunk(2, dim=-1)
    return value * F.gelu(gate)


class _Geglu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.contiguous()
        out = x.new_empty(*x.shape[:-1], x.shape[-1] // 2)
        _forward_kernel[(triton.cdiv(out.numel(), _BLOCK),)](x, out, out.shape[-1], out.numel(), _BLOCK)
        ctx.save_for_backward(x)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        gradient, out = gradient.contiguous(), torch.empty_like(x)
        count, width = gradient.numel(), gradient.shape[-1]
        _backward_kernel[(triton.cdiv(count, _BLOCK),)](x, gradient, out, width, count, _BLOCK)
        return out


if triton is not None:

    @triton.jit
    def _halves(x, width, count, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
        i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
        at = i // width * 2 * width + i % width
        value = tl.load(x + at, mask=i < count, other=0.0).to(tl.float32)
        gate = tl.load(x + at + width, mask=i < count, other=0.0).to(tl.float32)
        return i, at, value, gate

    @triton.jit
    def _forward_kernel(x, out, width, count, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
        i, _, value, gate = _halves(x, width, count, BLOCK)
        result = value * gate * 0.5 * (1 + tl.erf(gate * 0.7071067811865476))
        tl.store(out + i, result.to(out.dtype.element_ty), mask=i < count)

    @triton.jit
    def _backward_kernel(x, gradient, out, width, count, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
        i, at, value, gate = _halves(x, width, count, BLOCK)
        slope = tl.load(gradient + i, mask=i < count, other=0.0).to(tl.float32)
        share = 0.5 * (1 + tl.erf(gate * 0.7071067811865476))
        density = 0.3989422804014327 * tl.exp(-0.5 * gate * gate)
        tl.store(out + at, (slope * gate * share).to(out.dtype.element_ty), mask=i < count)
        tl.store(out + at + width, (slope * value * (share + gate * density)).to(out.dtype.element_ty), mask=i < count)
