"""What this machine's device offers, and how much memory this process takes of it: measured."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, cast

import torch
from torch.nn.functional import scaled_dot_product_attention

from tav.estimate import probes
from tav.estimate.device import CUDA_CONTEXT_BYTES, LINK, Device, host_memory, kernel_figure
from tav.memory import Precision
from tav.precision import DTYPES

Clock = Callable[[], float]
_BUDGET_SECONDS = 0.2
"""Of each of four probes."""


def here(precision: Precision, kind: Literal["cpu", "cuda"] | None = None, clock: Clock = time.perf_counter) -> Device:
    """Probe this process's GPU, or its CPU with the threads torch may use, for less than a second.

    Args:
        precision: of matrix products and elementwise operations.
        kind: None takes the GPU if there is one.
        clock: the wall's, or this process's own.
    """
    kind = kind or ("cuda" if torch.cuda.is_available() else "cpu")
    flops, attention, bandwidth, operation = _speeds(kind, DTYPES[precision], clock)
    return Device(
        name=torch.cuda.get_device_name() if kind == "cuda" else probes.cpu_name(torch.get_num_threads()),
        kind=kind,
        memory_bytes=memory_of(kind),
        flops=flops,
        attention=attention,
        bandwidth=bandwidth,
        link=LINK if kind == "cuda" else bandwidth,
        operation_seconds=operation,
    )


def gpu(precision: Precision) -> Device:
    """Return this process's GPU, probed once per machine, and the memory that it offers now."""
    device = probes.stored(torch.cuda.get_device_name(), precision)
    if device is None:
        device = probes.store(here(precision, "cuda"), precision)
    return device.model_copy(update={"memory_bytes": memory_of("cuda")})


class PeakMemory:
    """The most memory that this process holds inside the `with` block: of the GPU, or resident (Linux).

    Args:
        kind: of device.
    """

    bytes = 0

    def __init__(self, kind: Literal["cpu", "cuda"]) -> None:
        self.kind = kind

    def __enter__(self) -> PeakMemory:
        if self.kind == "cuda":
            torch.cuda.reset_peak_memory_stats()
        else:
            Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts again from here
        return self

    def __exit__(self, *_: object) -> None:
        if self.kind == "cuda":
            self.bytes = torch.cuda.max_memory_reserved() + CUDA_CONTEXT_BYTES
        else:
            self.bytes = kernel_figure("/proc/self/status", "VmHWM")


def memory_of(kind: Literal["cpu", "cuda"]) -> int:
    """Return the bytes of the device that this process can have in all: what is free and what it holds already."""
    if kind == "cpu":
        return host_memory()
    free, _ = torch.cuda.mem_get_info()
    return int(free + torch.cuda.memory_reserved() + CUDA_CONTEXT_BYTES)


def _speeds(kind: str, dtype: torch.dtype, clock: Clock) -> tuple[float, float, float, float]:
    side = 4096 if kind == "cuda" else 512
    tokens, heads, width = (4096 if kind == "cuda" else 512), 8, 40  # as in Stable Diffusion's first block
    matrix = torch.randn(side, side, device=kind).to(dtype)
    query = torch.randn(1, heads, tokens, width, device=kind).to(dtype)
    large = torch.randn((64 if kind == "cuda" else 4) * 2**20, device=kind).to(dtype)
    small = torch.zeros(8, device=kind)
    product = _seconds(lambda: matrix @ matrix, kind, clock)
    attention = _seconds(lambda: scaled_dot_product_attention(query, query, query), kind, clock)
    addition = _seconds(lambda: large + large, kind, clock)
    tiny = _seconds(lambda: small + small, kind, clock, batch=200)
    attended = 4 * heads * tokens**2 * width
    return 2 * side**3 / product, attended / attention, large.numel() * large.element_size() / addition, tiny


def _seconds(work: Callable[[], object], kind: str, clock: Clock, batch: int = 1) -> float:
    """Return the time of one call while nothing else ran: the shortest of many."""

    def once() -> float:
        began = clock()
        for _ in range(batch):
            work()
        if kind == "cuda":
            torch.cuda.synchronize()
        return (clock() - began) / batch

    once()
    times: list[float] = []
    end = time.perf_counter() + _BUDGET_SECONDS
    while len(times) < 3 or (time.perf_counter() < end and len(times) < 100):
        times.append(once())
    return min(times)


if __name__ == "__main__":  # see `tav.estimate.probes`
    torch.set_num_threads(int(sys.argv[2]))
    print(here(cast("Precision", sys.argv[1]), "cpu").model_dump_json())
