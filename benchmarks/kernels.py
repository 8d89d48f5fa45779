"""Check every kernel against the same function in fp64, and print a line for each: `python -m benchmarks.kernels`.

On a GPU that is how the kernels run; on a CPU `TRITON_INTERPRET=1` lets Triton's interpreter run them, slowly. The exit code
is 1 where a kernel differs by more than its precision explains, or gives other bits when it is called again.

    python -m benchmarks.kernels                     # on the GPU
    TRITON_INTERPRET=1 python -m benchmarks.kernels  # on a CPU
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from tav.inflation import VideoUNet, inflate
from tav.kernels.cross_attention import can_use_cross_attention, cross_attention, plain_cross_attention
from tav.kernels.geglu import can_use_geglu, geglu, plain_geglu
from tav.kernels.group_norm import can_use_group_norm, group_norm, plain_group_norm
from tav.kernels.sparse_attention import can_use_sparse_attention, plain_sparse_attention, sparse_attention
from tav.kernels.switch import kernels_off, triton_takes
from tav.kernels.temporal_attention import can_use_temporal_attention, plain_temporal_attention, temporal_attention
from tav.precision import DTYPES

TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 8e-3, torch.float16: 1e-3}
"""Of the relative error, where results are rounded once: two units of the last digit."""


@dataclass
class Check:
    """A kernel on tensors of one shape and precision."""

    name: str
    usable: bool
    kernel: Callable[..., Tensor]
    plain: Callable[..., Tensor]
    inputs: list[Tensor]
    """Of which gradients are compared."""
    others: dict[str, Tensor] = field(default_factory=dict)


def group_norms(device: torch.device, dtype: torch.dtype) -> Iterator[Check]:
    """Yield norms over videos and frames, with and without what stands around them, around a mean far from zero."""
    for videos, frames, channels, height, width, silu, shifted in (
        (2, 3, 64, 5, 4, True, True),
        (3, 1, 96, 3, 7, False, False),
        (1, 5, 640, 17, 9, True, False),
        (2, 1, 256, 1, 1, False, True),
    ):
        x = (torch.randn(videos * frames, channels, height, width, device=device) * 2 + 20).to(dtype)
        x = x.contiguous(memory_format=torch.channels_last)
        vectors = [torch.randn(channels, device=device).to(dtype) for _ in range(2)]
        shift = {"shift": torch.randn(videos, channels, device=device).to(dtype)} if shifted else {}
        call = {"num_frames": frames, "silu": silu}

        def plain(x: Tensor, call: dict[str, int] = call, of: list[Tensor] = vectors, **shift: Tensor) -> Tensor:
            return plain_group_norm(x, 32, *(vector.to(x.dtype) for vector in of), 1e-5, **call, **shift)

        def kernel(x: Tensor, call: dict[str, int] = call, of: list[Tensor] = vectors, **shift: Tensor) -> Tensor:
            return group_norm(x, 32, *of, 1e-5, **call, **shift)

        yield Check(f"group_norm {tuple(x.shape)}/{frames}", can_use_group_norm(x, 32), kernel, plain, [x], shift)


def geglus(device: torch.device, dtype: torch.dtype) -> Iterator[Check]:
    """Yield gates of an odd width."""
    x = torch.randn(3, 7, 26, device=device).to(dtype)
    yield Check(f"geglu {tuple(x.shape)}", can_use_geglu(x), geglu, plain_geglu, [x])


def temporal_attentions(device: torch.device, dtype: torch.dtype) -> Iterator[Check]:
    """Yield few and many frames, narrow and wide heads."""
    for videos, frames, tokens, heads, width in ((2, 3, 5, 2, 40), (1, 33, 3, 2, 8), (1, 16, 2, 1, 160)):
        inputs = [torch.randn(videos * frames, tokens, heads * width, device=device).to(dtype) for _ in range(3)]
        modes = {"num_frames": frames, "heads": heads, "scale": width**-0.5}
        usable = can_use_temporal_attention(inputs[0], frames, heads)
        pair = (partial(function, **modes) for function in (temporal_attention, plain_temporal_attention))
        yield Check(f"temporal_attention F={frames} D={width}", usable, *pair, inputs)


def cross_attentions(device: torch.device, dtype: torch.dtype) -> Iterator[Check]:
    """Yield prompts of SD's and the offline base's length."""
    for batch, queries, keys, heads, width in ((2, 70, 77, 2, 40), (1, 5, 24, 2, 8), (3, 64, 16, 1, 160)):
        query = torch.randn(batch, queries, heads * width, device=device).to(dtype)
        of_keys = {name: torch.randn(batch, keys, heads * width, device=device).to(dtype) for name in ("key", "value")}
        modes = {"heads": heads, "scale": width**-0.5}
        usable = can_use_cross_attention(query, *of_keys.values(), heads)
        pair = (partial(function, **modes) for function in (cross_attention, plain_cross_attention))
        yield Check(f"cross_attention L={keys} D={width}", usable, *pair, [query], of_keys)


def sparse_attentions(device: torch.device, dtype: torch.dtype) -> Iterator[Check]:
    """Yield one frame, two, and several, in heads of SD's widths."""
    for videos, frames, tokens, heads, width in ((1, 1, 64, 2, 40), (1, 2, 64, 2, 80), (2, 5, 256, 1, 160)):
        inputs = [torch.randn(videos * frames, tokens, heads * width, device=device).to(dtype) for _ in range(3)]
        modes = {"num_frames": frames, "heads": heads, "scale": width**-0.5}
        pair = (partial(function, **modes) for function in (sparse_attention, plain_sparse_attention))
        yield Check(f"sparse_attention F={frames} D={width}", can_use_sparse_attention(inputs[0], heads), *pair, inputs)


def errors(check: Check) -> tuple[list[float], bool]:
    """Return the relative errors of the result and of every gradient, and whether a second call gives the same bits."""

    def run(function: Callable[..., Tensor], dtype: torch.dtype | None) -> list[Tensor]:
        inputs = [x.to(dtype or x.dtype).requires_grad_() for x in (x.detach().clone() for x in check.inputs)]
        others = {name: x.to(dtype or x.dtype) for name, x in check.others.items()}
        out = function(*inputs, **others)
        direction = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out.device)
        rounded = direction.to(check.inputs[0].dtype)
        return [out.detach(), *torch.autograd.grad(out, inputs, rounded.to(out.dtype))]

    ours, again, exact = run(check.kernel, None), run(check.kernel, None), run(check.plain, torch.float64)
    same = all(torch.equal(a, b) for a, b in zip(ours, again, strict=True))
    return [_relative(a, b) for a, b in zip(ours, exact, strict=True)], same


def _relative(result: Tensor, exact: Tensor) -> float:
    return float((result.double() - exact).norm() / exact.norm().clamp(min=1e-6))


def network_errors(device: torch.device, dtype: torch.dtype) -> tuple[float, float]:
    """Return how far a small network, its prediction and gradients, is from itself in fp32: with kernels, and without."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(32, 64),
        layers_per_block=1,
        cross_attention_dim=24,
        attention_head_dim=2,
        norm_num_groups=8,
    ).to(device, dtype)
    latents, text = torch.randn(2, 4, 3, 8, 8, device=device).to(dtype), torch.randn(2, 7, 24, device=device).to(dtype)

    def run(net: VideoUNet) -> Tensor:
        tuned = [p.requires_grad_() for name, p in net.named_parameters() if ".to_q." in name or ".attn_temp." in name]
        out = net(latents.to(net.dtype), 10, text.to(net.dtype))
        gradients = torch.autograd.grad(64 * out.float().square().mean(), tuned)  # scaled, or fp16 rounds them to nothing
        return torch.cat([out.detach().flatten(), *(gradient.flatten() for gradient in gradients)]).double()

    ours = run(inflate(unet))
    with kernels_off():
        unet.to(memory_format=torch.contiguous_format)
        plain, exact = run(inflate(unet)), run(inflate(unet.float()))
    return _relative(ours, exact), _relative(plain, exact)


def main() -> int:
    """The command line; the exit code."""
    parser = argparse.ArgumentParser(description="Check every kernel.")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=DTYPES, nargs="+", default=list(DTYPES))
    options = parser.parse_args()
    device, failed = torch.device(options.device), 0
    if not triton_takes(torch.zeros(1, device=device)):
        print(f"no kernel of Triton runs on {device}: install triton, and on a CPU set TRITON_INTERPRET=1", file=sys.stderr)
        return 1
    for dtype in (DTYPES[name] for name in options.dtype):
        torch.manual_seed(0)
        for checks in (group_norms, geglus, temporal_attentions, cross_attentions, sparse_attentions):
            for check in checks(device, dtype):
                if not check.usable:
                    print(f"{check.name:44} {str(dtype)[6:]:9} not used here")
                    continue
                deviations, same = errors(check)
                right = same and max(deviations) <= TOLERANCE[dtype]
                failed += not right
                numbers = " ".join(f"{error:.1e}" for error in deviations)
                print(
                    f"{check.name:44} {str(dtype)[6:]:9} {'ok' if right else 'WRONG'} {numbers}{'' if same else ' OTHER BITS'}"
                )
        ours, plain = network_errors(device, dtype)
        right = ours <= 1.5 * plain + TOLERANCE[torch.float32]  # as exact as without kernels
        failed += not right
        print(f"{'network':44} {str(dtype)[6:]:9} {'ok' if right else 'WRONG'} {ours:.1e}, by torch alone {plain:.1e}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
