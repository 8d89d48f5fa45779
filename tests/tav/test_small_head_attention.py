"""Attention with small heads on a CPU, beside the definition."""

import logging

import pytest
import torch
from torch import Tensor

from tav.kernels import small_head_attention as kernel
from tav.kernels.small_head_attention import can_use_small_head_attention, small_head_attention

HEADS = 3


def tensors(width: int, batch: int, queries: int, keys: int, scale: float = 1.0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(batch, n, HEADS * width) for n in (queries, keys, keys)]
    return [(scale * torch.randn(shape, generator=generator)).requires_grad_() for shape in shapes]


def defined(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """Softmax(q·kᵀ)·v in double precision."""
    q, k, v = (t.double().unflatten(-1, (HEADS, -1)).transpose(1, 2) for t in (query, key, value))
    return ((scale * q @ k.mT).softmax(-1) @ v).transpose(1, 2).flatten(2)


def difference(one: Tensor, other: Tensor) -> float:
    return ((one - other).norm() / other.norm()).item()


@pytest.mark.parametrize("width", kernel.WIDTHS)
@pytest.mark.parametrize(("batch", "queries", "keys"), [(2, 64, 128), (3, 1, 1), (1, 77, 33), (4, 8, 8), (1, 5, 16)])
@pytest.mark.parametrize("size", [1.0, 6.0])
def test_output_and_gradients_are_exact_to_fp32(width: int, batch: int, queries: int, keys: int, size: float) -> None:
    given = tensors(width, batch, queries, keys, size)
    assert can_use_small_head_attention(given[0].detach(), HEADS)
    out, exact = small_head_attention(*given, HEADS, 0.4), defined(*given, 0.4)
    toward = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    assert difference(out, exact) < 2e-6
    ours, theirs = torch.autograd.grad(out, given, toward), torch.autograd.grad(exact, given, toward.double())
    for one, other in zip(ours, theirs, strict=True):
        rounding = 2e-7 * size**2 * one.numel() ** 0.5  # all there is where one key takes all
        assert (one - other).norm() <= 1e-5 * other.norm() + rounding


def test_torchs_attention_is_no_more_exact() -> None:
    given = tensors(4, 2, 256, 512)
    q, k, v = (t.unflatten(-1, (HEADS, -1)).transpose(1, 2) for t in given)
    fused = torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=0.5).transpose(1, 2).flatten(2)
    exact = defined(*given, 0.5)
    assert difference(small_head_attention(*given, HEADS, 0.5), exact) < 2 * difference(fused, exact)


def test_the_same_bits_whatever_the_number_of_threads_and_which_gradients_are_wanted() -> None:
    given = tensors(4, 4, 200, 300)  # enough for a second thread
    query, key, value = given
    made = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            out = small_head_attention(*given, HEADS, 0.5)
            made.append([out, *torch.autograd.grad(out.sum(), given)])
    finally:
        torch.set_num_threads(before)
    assert all((one == other).all() for one, other in zip(*made, strict=True))
    out = small_head_attention(query, key.detach(), value.detach(), HEADS, 0.5)
    assert (torch.autograd.grad(out.sum(), query)[0] == made[0][1]).all()


def test_logits_of_any_size_stay_finite_and_nan_is_not_hidden() -> None:
    given = tensors(4, 1, 20, 40, 100.0)
    out = small_head_attention(*given, HEADS, 1.0)
    assert difference(out, defined(*given, 1.0)) < 1e-4  # fp32 rounds such logits to 1e-3
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(out.sum(), given))
    broken = [t.detach().clone() for t in given]
    broken[1][0, 7] = float("nan")
    assert small_head_attention(*broken, HEADS, 1.0).isnan().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_loses_only_what_its_tensors_do(dtype: torch.dtype) -> None:
    given = [t.detach().to(dtype).requires_grad_() for t in tensors(8, 2, 30, 50)]
    out, exact = small_head_attention(*given, HEADS, 0.4), defined(*given, 0.4)
    assert out.dtype == dtype and (out == exact.to(dtype)).float().mean() > 0.99
    ours, theirs = (torch.autograd.grad(o.sum(), given) for o in (out, exact))
    assert all(a.dtype == dtype and difference(a, b) < torch.finfo(dtype).eps for a, b in zip(ours, theirs, strict=True))


def test_what_it_cannot_take_is_torchs() -> None:
    query = torch.zeros(1, 2, 3 * 4)
    assert can_use_small_head_attention(query, 3)
    assert not can_use_small_head_attention(query, 1)  # 12 wide
    assert not can_use_small_head_attention(query.double(), 3)
    assert not can_use_small_head_attention(query.to("meta"), 3)


def test_without_a_compiler_torch_does_and_says_so(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("PATH", "")
    kernel._kernels.cache_clear()
    try:
        with caplog.at_level(logging.WARNING):
            assert not can_use_small_head_attention(torch.zeros(1, 2, 3 * 4), 3)
            assert not can_use_small_head_attention(torch.zeros(1, 2, 3 * 4), 3)
        assert len(caplog.records) == 1 and "install g++" in caplog.text
    finally:
        kernel._kernels.cache_clear()
