"""GroupNorm over a video or over each frame, channels last, with SiLU after it and a shift of the channels before it.

Replaces aten's `group_norm`, which starts one block for each group, and the kernels around it: the bias of the convolution
before, the time embedding's sum, SiLU. Memory is read twice and written once; backward reads twice and writes once.

Exactness: sums are in fp32, each chunk around the first value of its channel and then combined (Chan et al. 1979), so that
a large mean costs no digits. Weights and shift are frozen: there is no gradient for them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from tav.kernels.switch import interpreted, triton_takes

try:
    import triton
    import triton.language as tl
except ImportError:  # where torch brings none
    triton = None

_PROGRAMS = 2 if interpreted() else 512
"""To spread a tensor over: some for each of a large GPU's 132 processors. An interpreter takes its time for each."""
_ELEMENTS = 8192
"""Of a block, in registers."""


def can_use_group_norm(x: Tensor, num_groups: int) -> bool:
    """Return whether `group_norm` takes `x` `[N, C, h, w]`: on a device with Triton, in channels-last memory."""
    return (
        x.ndim == 4 and x.shape[1] % num_groups == 0 and x.is_contiguous(memory_format=torch.channels_last) and triton_takes(x)
    )


def group_norm(
    x: Tensor,
    num_groups: int,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    *,
    num_frames: int = 1,
    silu: bool = False,
    shift: Tensor | None = None,
) -> Tensor:
    """Compute `silu(group_norm(x + shift))`, with a gradient for `x` alone.

    Args:
        x: `[B·F, C, h, w]`, channels last.
        num_groups: that C is divided into.
        weight: `[C]`, frozen.
        bias: `[C]`, frozen.
        eps: added to the variance.
        num_frames: F adjacent frames are normalised together; 1 normalises each by itself.
        silu: whether SiLU follows.
        shift: `[B, C]` or `[1, C]`, added to every pixel before; frozen.

    Returns:
        `[B·F, C, h, w]`, channels last, in the type of `x`.
    """
    out: Tensor = _GroupNorm.apply(x, num_groups, weight, bias, eps, num_frames, silu, shift)
    return out


def plain_group_norm(
    x: Tensor,
    num_groups: int,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    *,
    num_frames: int = 1,
    silu: bool = False,
    shift: Tensor | None = None,
) -> Tensor:
    """Compute the same in torch, for `x` in any memory format."""
    if shift is not None:
        x = x + shift.to(x.dtype).expand(len(x) // num_frames, -1).repeat_interleave(num_frames, 0)[:, :, None, None]
    if num_frames == 1:
        out = F.group_norm(x, num_groups, weight, bias, eps)
    else:
        video = x.unflatten(0, (-1, num_frames)).transpose(1, 2)  # [B, C, F, h, w]
        out = F.group_norm(video, num_groups, weight, bias, eps).transpose(1, 2).flatten(0, 1)
    return F.silu(out) if silu else out


class _GroupNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        num_groups: int,
        weight: Tensor,
        bias: Tensor,
        eps: float,
        num_frames: int,
        silu: bool,
        shift: Tensor | None,
    ) -> Tensor:
        rows, channels = num_frames * x.shape[2] * x.shape[3], x.shape[1]
        videos, width = len(x) // num_frames, channels // num_groups
        grid, chunk, block = _layout(videos, rows, channels)
        pixels = x.permute(0, 2, 3, 1)
        means, squares = (x.new_empty(grid[0], videos, channels, dtype=torch.float32) for _ in range(2))
        _sum_kernel[grid](pixels, means, squares, rows, channels, chunk, *block)
        per_channel = [x.new_empty(videos, channels, dtype=torch.float32) for _ in range(4)]
        shifts = None if shift is None else shift.float().expand(videos, channels).contiguous()
        _combine_kernel[videos, num_groups](
            means, squares, shifts, weight, bias, *per_channel, grid[0], rows, chunk, channels, width, eps,
            HAS_SHIFT=shifts is not None, BLOCK_N=triton.next_power_of_2(min(grid[0], 256)),
            BLOCK_C=triton.next_power_of_2(width),
        )  # fmt: skip
        scale, offset, *_ = per_channel
        out = torch.empty_like(x)  # keeps channels last
        _apply_kernel[grid](pixels, out.permute(0, 2, 3, 1), scale, offset, rows, channels, chunk, silu, *block)
        ctx.save_for_backward(x, *per_channel)
        ctx.num_groups, ctx.num_frames, ctx.silu = num_groups, num_frames, silu
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, offset, inverse, centre = ctx.saved_tensors
        rows, channels = ctx.num_frames * x.shape[2] * x.shape[3], x.shape[1]
        videos, width = len(scale), channels // ctx.num_groups
        grid, chunk, block = _layout(videos, rows, channels)
        gradient = gradient.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1)
        pixels, vectors = x.permute(0, 2, 3, 1), (scale, offset, inverse, centre)
        sums, products = (x.new_empty(grid[0], videos, channels, dtype=torch.float32) for _ in range(2))
        _backward_sum_kernel[grid](
            pixels, gradient, *vectors, sums, products, rows, channels, chunk, ctx.silu, *block
        )  # fmt: skip
        by_group = (part.sum(0).unflatten(1, (ctx.num_groups, width)).sum(2) / (rows * width) for part in (sums, products))
        mean, slope = (value.repeat_interleave(width, 1).contiguous() for value in by_group)
        out = torch.empty_like(x)
        _backward_apply_kernel[grid](
            pixels, gradient, *vectors, mean, slope, out.permute(0, 2, 3, 1), rows, channels, chunk, ctx.silu, *block
        )  # fmt: skip
        return out, *(None,) * 7


def _layout(videos: int, rows: int, channels: int) -> tuple[tuple[int, int, int], int, tuple[int, int]]:
    """Return the grid (chunks, videos, blocks of channels), rows of a chunk, and a block's rows and channels."""
    wide = min(triton.next_power_of_2(channels), 512)
    high = max(1, _ELEMENTS // wide)
    columns = triton.cdiv(channels, wide)
    chunks = max(1, _PROGRAMS // (videos * columns))
    chunk = triton.cdiv(triton.cdiv(rows, chunks), high) * high
    return (triton.cdiv(rows, chunk), videos, columns), chunk, (high, wide)


if triton is not None:

    @triton.jit
    def _sum_kernel(x, means, squares, rows, channels, chunk, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr):  # type: ignore[no-untyped-def]
        """Per channel of a chunk of rows: the mean, and the sum of squared differences from it."""
        number, video, columns = tl.program_id(0), tl.program_id(1), tl.program_id(2)
        c = columns * BLOCK_C + tl.arange(0, BLOCK_C)
        first = number * chunk
        base = x + video.to(tl.int64) * rows * channels
        pivot = tl.load(base + first.to(tl.int64) * channels + c, mask=c < channels, other=0.0).to(tl.float32)
        sums = tl.zeros([BLOCK_C], tl.float32)
        of_squares = tl.zeros([BLOCK_C], tl.float32)
        for start in range(0, chunk, BLOCK_R):
            r = first + start + tl.arange(0, BLOCK_R)
            here = (r < rows)[:, None] & (c < channels)[None, :]
            value = tl.load(base + r.to(tl.int64)[:, None] * channels + c[None, :], mask=here, other=0.0).to(tl.float32)
            value = tl.where(here, value - pivot[None, :], 0.0)
            sums += tl.sum(value, 0)
            of_squares += tl.sum(value * value, 0)
        count = tl.minimum(chunk, rows - first).to(tl.float32)
        to = (number * tl.num_programs(1) + video) * channels + c
        tl.store(means + to, pivot + sums / count, mask=c < channels)
        tl.store(squares + to, of_squares - sums * sums / count, mask=c < channels)

    @triton.jit
    def _combine_kernel(  # type: ignore[no-untyped-def]
        means, squares, shifts, weight, bias, scale, offset, inverse, centre, chunks, rows, chunk, channels, width, eps,
        HAS_SHIFT: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr,
    ):  # fmt: skip
        """Per group of a video: mean and deviation over all chunks, as what `_apply_kernel` multiplies by and adds."""
        video, group = tl.program_id(0), tl.program_id(1)
        videos = tl.num_programs(0)
        column = tl.arange(0, BLOCK_C)
        inside, c = column < width, group * width + column
        shift = tl.zeros([BLOCK_C], tl.float32)
        if HAS_SHIFT:
            shift = tl.load(shifts + video * channels + c, mask=inside, other=0.0)
        total = tl.zeros([BLOCK_C], tl.float32)
        for start in range(0, chunks, BLOCK_N):
            n = start + tl.arange(0, BLOCK_N)
            here = (n < chunks)[:, None] & inside[None, :]
            count = tl.minimum(chunk, rows - n * chunk).to(tl.float32)
            value = tl.load(means + (n[:, None] * videos + video) * channels + c[None, :], mask=here, other=0.0)
            total += tl.sum(tl.where(here, (value + shift[None, :]) * count[:, None], 0.0), 0)
        size = rows * 1.0 * width  # Triton makes a constant of an argument that is 1
        mean = tl.sum(total, 0) / size
        spread = tl.zeros([BLOCK_C], tl.float32)
        for start in range(0, chunks, BLOCK_N):
            n = start + tl.arange(0, BLOCK_N)
            here = (n < chunks)[:, None] & inside[None, :]
            count = tl.minimum(chunk, rows - n * chunk).to(tl.float32)
            at = (n[:, None] * videos + video) * channels + c[None, :]
            away = tl.load(means + at, mask=here, other=0.0) + shift[None, :] - mean
            within = tl.load(squares + at, mask=here, other=0.0)
            spread += tl.sum(tl.where(here, within + away * away * count[:, None], 0.0), 0)
        rstd = 1.0 / tl.sqrt(tl.sum(spread, 0) / size + eps)
        w = tl.load(weight + c, mask=inside, other=0.0).to(tl.float32)
        b = tl.load(bias + c, mask=inside, other=0.0).to(tl.float32)
        to = video * channels + c
        middle = (shift - mean) * rstd
        tl.store(scale + to, w * rstd, mask=inside)
        tl.store(offset + to, b + w * middle, mask=inside)
        tl.store(inverse + to, tl.zeros([BLOCK_C], tl.float32) + rstd, mask=inside)
        tl.store(centre + to, middle, mask=inside)

    @triton.jit
    def _apply_kernel(  # type: ignore[no-untyped-def]
        x, out, scale, offset, rows, channels, chunk, SILU: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr
    ):
        number, video, columns = tl.program_id(0), tl.program_id(1), tl.program_id(2)
        c = columns * BLOCK_C + tl.arange(0, BLOCK_C)
        s = tl.load(scale + video * channels + c, mask=c < channels, other=0.0)[None, :]
        o = tl.load(offset + video * channels + c, mask=c < channels, other=0.0)[None, :]
        for start in range(0, chunk, BLOCK_R):
            r = number * chunk + start + tl.arange(0, BLOCK_R)
            here = (r < rows)[:, None] & (c < channels)[None, :]
            at = (video.to(tl.int64) * rows + r)[:, None] * channels + c[None, :]
            value = tl.load(x + at, mask=here, other=0.0).to(tl.float32) * s + o
            if SILU:
                value = value * tl.sigmoid(value)
            tl.store(out + at, value.to(out.dtype.element_ty), mask=here)

    @triton.jit
    def _normal_gradient(x, gradient, at, here, s, o, SILU: tl.constexpr):  # type: ignore[no-untyped-def]
        """The pixels, and the gradient of the normalised pixels times the deviation's inverse."""
        value = tl.load(x + at, mask=here, other=0.0).to(tl.float32)
        slope = tl.load(gradient + at, mask=here, other=0.0).to(tl.float32)
        if SILU:
            z = value * s + o
            q = tl.sigmoid(z)
            slope = slope * q * (1 + z * (1 - q))
        return value, slope * s

    @triton.jit
    def _backward_sum_kernel(  # type: ignore[no-untyped-def]
        x, gradient, scale, offset, inverse, centre, sums, products, rows, channels, chunk,
        SILU: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr,
    ):  # fmt: skip
        number, video, columns = tl.program_id(0), tl.program_id(1), tl.program_id(2)
        c = columns * BLOCK_C + tl.arange(0, BLOCK_C)
        k = video * channels + c
        s, o, i, m = (
            tl.load(scale + k, mask=c < channels, other=0.0)[None, :],
            tl.load(offset + k, mask=c < channels, other=0.0)[None, :],
            tl.load(inverse + k, mask=c < channels, other=0.0)[None, :],
            tl.load(centre + k, mask=c < channels, other=0.0)[None, :],
        )
        total = tl.zeros([BLOCK_C], tl.float32)
        product = tl.zeros([BLOCK_C], tl.float32)
        for start in range(0, chunk, BLOCK_R):
            r = number * chunk + start + tl.arange(0, BLOCK_R)
            here = (r < rows)[:, None] & (c < channels)[None, :]
            at = (video.to(tl.int64) * rows + r)[:, None] * channels + c[None, :]
            value, slope = _normal_gradient(x, gradient, at, here, s, o, SILU)
            slope = tl.where(here, slope, 0.0)
            total += tl.sum(slope, 0)
            product += tl.sum(slope * (value * i + m), 0)
        to = (number * tl.num_programs(1) + video) * channels + c
        tl.store(sums + to, total, mask=c < channels)
        tl.store(products + to, product, mask=c < channels)

    @triton.jit
    def _backward_apply_kernel(  # type: ignore[no-untyped-def]
        x, gradient, scale, offset, inverse, centre, mean, product, out, rows, channels, chunk,
        SILU: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr,
    ):  # fmt: skip
        number, video, columns = tl.program_id(0), tl.program_id(1), tl.program_id(2)
        c = columns * BLOCK_C + tl.arange(0, BLOCK_C)
        k = video * channels + c
        s, o, i, m = (
            tl.load(scale + k, mask=c < channels, other=0.0)[None, :],
            tl.load(offset + k, mask=c < channels, other=0.0)[None, :],
            tl.load(inverse + k, mask=c < channels, other=0.0)[None, :],
            tl.load(centre + k, mask=c < channels, other=0.0)[None, :],
        )
        average = tl.load(mean + k, mask=c < channels, other=0.0)[None, :]
        leaning = tl.load(product + k, mask=c < channels, other=0.0)[None, :]
        for start in range(0, chunk, BLOCK_R):
            r = number * chunk + start + tl.arange(0, BLOCK_R)
            here = (r < rows)[:, None] & (c < channels)[None, :]
            at = (video.to(tl.int64) * rows + r)[:, None] * channels + c[None, :]
            value, slope = _normal_gradient(x, gradient, at, here, s, o, SILU)
            result = slope - average - (value * i + m) * leaning
            tl.store(out + at, result.to(out.dtype.element_ty), mask=here)
