"""Kernels give what torch gives. Those in Triton run in its interpreter here, flash-attn-4's place is taken by a stand-in."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from tav import Base, inflate
from tav.attention import first_and_previous
from tav.kernels import cross_attention, temporal_attention
from tav.kernels import sparse_attention as sparse
from tav.kernels.cross_attention import can_use_cross_attention
from tav.kernels.group_norm import can_use_group_norm, plain_group_norm
from tav.kernels.softmax import fits
from tav.kernels.sparse_attention import plain_sparse_attention
from tav.kernels.switch import kernels_enabled, kernels_off


@pytest.mark.slow
def test_every_triton_kernel_agrees_with_torch_in_every_precision_and_repeats_its_bits() -> None:
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "benchmarks.kernels", "--device", "cpu"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    lines = [line for line in done.stdout.splitlines() if "sparse_attention" not in line]
    assert len(lines) == 3 * (4 + 1 + 3 + 3 + 1) and all(" ok " in line for line in lines), done.stdout


@pytest.mark.parametrize(
    ("rows", "width", "item_bytes", "most", "fitting"),
    [
        (77, 40, 2, cross_attention.MAX_BLOCK_BYTES, True),
        (77, 80, 2, cross_attention.MAX_BLOCK_BYTES, True),
        (77, 160, 2, cross_attention.MAX_BLOCK_BYTES, False),
        (77, 80, 4, cross_attention.MAX_BLOCK_BYTES, False),
        (32, 160, 2, temporal_attention.MAX_BLOCK_BYTES, True),
        (64, 160, 2, temporal_attention.MAX_BLOCK_BYTES, False),
        (64, 40, 4, temporal_attention.MAX_BLOCK_BYTES, True),
    ],
)
def test_blocks_that_a_gpus_shared_memory_may_not_hold_are_left_to_torch(
    rows: int, width: int, item_bytes: int, most: int, fitting: bool
) -> None:
    assert fits(rows, width, item_bytes, most) is fitting


def attention(q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """`[n, t, H, D]` -> the same, and the scores' logarithmic sums `[n, H, t]`."""
    scores = torch.einsum("nihd,njhd->nhij", q, k) * scale
    return torch.einsum("nhij,njhd->nihd", scores.softmax(-1), v), scores.logsumexp(-1)


def flash_forward(q: Tensor, k: Tensor, v: Tensor, *, softmax_scale: float, out: Tensor, lse: Tensor, return_lse: bool) -> None:
    result, sums = attention(q, k, v, softmax_scale)
    out.copy_(result), lse.copy_(sums)  # type: ignore[func-returns-value]


def flash_backward(
    q: Tensor, k: Tensor, v: Tensor, out: Tensor, gradient: Tensor, lse: Tensor, *, softmax_scale: float, deterministic: bool
) -> tuple[Tensor, ...]:
    assert deterministic
    weights = (torch.einsum("nihd,njhd->nhij", q, k) * softmax_scale).softmax(-1)
    torch.testing.assert_close(torch.einsum("nhij,njhd->nihd", weights, v), out)
    torch.testing.assert_close((torch.einsum("nihd,njhd->nhij", q, k) * softmax_scale).logsumexp(-1), lse)
    slope = torch.einsum("nihd,njhd->nhij", gradient, v)
    slope = weights * (slope - (weights * slope).sum(-1, keepdim=True)) * softmax_scale
    of_query, of_key = torch.einsum("nhij,njhd->nihd", slope, k), torch.einsum("nhij,nihd->njhd", slope, q)
    return of_query, of_key, torch.einsum("nhij,nihd->njhd", weights, gradient)


@pytest.fixture
def flash(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = SimpleNamespace(_flash_attn_fwd=flash_forward, _flash_attn_bwd=flash_backward)
    monkeypatch.setattr(sparse, "_flash", lambda: stand_in)


@pytest.mark.parametrize(("videos", "frames"), [(1, 1), (2, 1), (1, 2), (2, 2), (1, 3), (2, 5)])
@pytest.mark.parametrize("way", ["flash", "plain"])
def test_st_attn_with_each_key_once_is_the_papers_with_frame_0_twice(flash: None, videos: int, frames: int, way: str) -> None:
    heads, width, tokens = 2, 8, 6
    given = [torch.randn(videos * frames, tokens, heads * width) for _ in range(3)]
    direction = torch.randn_like(given[0])

    def run(function: Any) -> list[Tensor]:
        inputs = [tensor.clone().requires_grad_() for tensor in given]
        out = function(*inputs)
        return [out, *torch.autograd.grad(out, inputs, direction)]

    def papers(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        k, v = first_and_previous(k, frames), first_and_previous(v, frames)
        q, k, v = (tensor.unflatten(-1, (heads, width)) for tensor in (q, k, v))
        return attention(q, k, v, width**-0.5)[0].flatten(2)

    ours = sparse.sparse_attention if way == "flash" else plain_sparse_attention
    for found, exact in zip(run(lambda *x: ours(*x, frames, heads, width**-0.5)), run(papers), strict=True):
        torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-5)


def test_st_attn_by_flash_goes_through_torch_compile_in_one_graph(flash: None) -> None:
    x = torch.randn(3, 4, 16)
    compiled = torch.compile(lambda t: sparse.sparse_attention(t, t, t, 3, 2, 0.3) * 2, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), sparse.sparse_attention(x, x, x, 3, 2, 0.3) * 2)


def test_a_cpu_uses_no_triton_kernel_and_kernels_can_be_off(base: Base) -> None:
    x = torch.randn(2, 32, 4, 4).contiguous(memory_format=torch.channels_last)
    assert not can_use_group_norm(x, 8) and not can_use_cross_attention(x, x, x, 1)
    with kernels_off():
        assert not kernels_enabled()
    code = "from tav.kernels.switch import kernels_enabled; print(kernels_enabled())"
    environment = os.environ | {"TAV_KERNELS": "off", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_channels_last_activations_give_the_same_prediction(base: Base) -> None:
    latents, text = torch.randn(1, 4, 2, 8, 8), torch.randn(1, 7, base.unet.config["cross_attention_dim"])
    plain = inflate(base.unet)(latents, 5, text)
    unet = UNet2DConditionModel.from_config(base.unet.config)
    unet.load_state_dict(base.unet.state_dict())
    net = inflate(unet.to(memory_format=torch.channels_last))
    seen = []
    hook = net.up_blocks[-1].register_forward_hook(lambda _, __, out: seen.append(out))
    folded = net.conv_in.register_forward_pre_hook(lambda _, x: x[0].contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(net(latents, 5, text), plain, rtol=1e-4, atol=1e-5)
    hook.remove(), folded.remove()  # type: ignore[func-returns-value]
    assert seen[0].is_contiguous(memory_format=torch.channels_last), "nothing on the way has copied them back"


def test_group_norm_over_a_video_is_over_all_its_frames() -> None:
    x, shift = torch.randn(4, 8, 3, 3), torch.randn(2, 8)
    weight, bias = torch.randn(8), torch.randn(8)
    found = plain_group_norm(x, 2, weight, bias, 1e-5, num_frames=2, silu=True, shift=shift)
    shifted = x.unflatten(0, (2, 2)) + shift[:, None, :, None, None]  # [B, F, C, h, w]
    groups = shifted.transpose(1, 2).unflatten(1, (2, 4))  # [B, G, C/G, F, h, w]
    mean, var = groups.mean((2, 3, 4, 5), keepdim=True), groups.var((2, 3, 4, 5), keepdim=True, correction=0)
    normal = ((groups - mean) / (var + 1e-5).sqrt()).flatten(1, 2).transpose(1, 2).flatten(0, 1)
    normal = normal * weight[:, None, None] + bias[:, None, None]
    torch.testing.assert_close(found, torch.nn.functional.silu(normal))
