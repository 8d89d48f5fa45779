"""What narrow arithmetic costs in digits: predictions in bf16 and fp16 beside fp32 ones of the same, narrowed weights.

    python -m benchmarks.precision

Two ways of each: all of the network in the narrow type, as `tav` computes, and norms in fp32, whose output is narrowed by the
next layer, as CUDA's autocast has them (imitated here, since a CPU's autocast leaves norms alone).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import record
from benchmarks.method import sd14
from tav.base import Base
from tav.inflation import inflate, is_tuned
from tav.memory import Precision
from tav.precision import DTYPES

TYPES: tuple[Precision, ...] = ("bf16", "fp16")
SEEDS = (1, 2)


@contextmanager
def norms_in_fp32() -> Iterator[None]:
    """As in CUDA's autocast; the other layers narrow what they get."""
    own = nn.functional.group_norm, nn.functional.layer_norm

    def widened(norm: Any) -> Any:
        return lambda x, shape, weight=None, bias=None, eps=1e-5: norm(x.float(), shape, weight.float(), bias.float(), eps)

    nn.functional.group_norm, nn.functional.layer_norm = map(widened, own)  # type: ignore[assignment]
    try:
        yield
    finally:
        nn.functional.group_norm, nn.functional.layer_norm = own  # type: ignore[assignment]


@torch.no_grad()
def errors(base: Base, frames: int, side: int) -> list[dict[str, Any]]:
    """‖prediction − exact‖ / ‖exact‖ for noise and prompts of several seeds."""
    net = inflate(base.unet, group_norm="frame")  # torch's own layer, whose function is replaced above
    generator = torch.Generator().manual_seed(0)
    for name, parameter in net.named_parameters():
        if is_tuned(name) and ".to_out." in name:
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    rows = []
    for called in TYPES:
        dtype = DTYPES[called]
        rounded = copy.deepcopy(net).to(dtype)
        exact = copy.deepcopy(rounded).float()
        for seed in SEEDS:
            generator.manual_seed(seed)
            x = torch.randn(1, 4, frames, side, side, generator=generator).to(dtype)
            text = torch.randn(1, 77, base.unet.config.cross_attention_dim, generator=generator).to(dtype)
            truth = exact(x.float(), 500, text.float())
            whole = off(rounded(x, 500, text), truth)
            with norms_in_fp32(), torch.autocast("cpu", dtype):
                mixed = off(rounded(x, 500, text), truth)
            rows.append({"base": base.name, "type": called, "seed": seed, "all narrow": whole, "norms in fp32": mixed})
    return rows


def off(prediction: Tensor, exact: Tensor) -> float:
    return float((prediction.float() - exact).norm() / exact.norm())


def main() -> None:
    rows = errors(Base.load("offline"), 4, 16) + errors(sd14("cpu", torch.float32), 2, 16)
    record.write("precision", {"relative_errors": rows})


if __name__ == "__main__":
    main()
