"""What the attention kernels in Triton share: a block of scores' softmax, and the sides of blocks."""

from __future__ import annotations

from tav.kernels.switch import interpreted

try:
    import triton
    import triton.language as tl
except ImportError:  # where torch brings none
    triton = None

_SMALLEST = 16
"""Side of a matrix that tensor cores multiply."""


def block_side(size: int) -> int:
    """Return the least side of a block that holds `size` rows or columns."""
    return max(_SMALLEST, triton.next_power_of_2(size))


def fits(rows: int, width: int, item_bytes: int, most_bytes: int) -> bool:
    """Return whether a block of `rows` heads of `width` numbers takes no more of a processor's memory than that."""
    return block_side(rows) * block_side(width) * item_bytes <= most_bytes


def upcast() -> bool:
    """Return whether kernels shall multiply in fp32 whatever the tensors are in: Triton's interpreter has no bf16 product."""
    return interpreted()


if triton is not None:

    @triton.jit
    def factor(x, at, here, UPCAST: tl.constexpr):  # type: ignore[no-untyped-def]
        """A factor of a product: what lies at `x + at`, zero where there is nothing."""
        value = tl.load(x + at, mask=here, other=0.0)
        if UPCAST:
            value = value.to(tl.float32)
        return value

    @triton.jit
    def softmax_of_scores(q, k, scale, keys, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
        """Softmax of the queries' scores over the first `keys` of `BLOCK` keys, in fp32."""
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        scores = tl.where((tl.arange(0, BLOCK) < keys)[None, :], scores, float("-inf"))
        weights = tl.exp(scores - tl.max(scores, 1)[:, None])
        return weights / tl.sum(weights, 1)[:, None]
