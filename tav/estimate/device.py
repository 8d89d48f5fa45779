"""What a device has room for and how fast it is, in one precision: a GPU's from its data sheet, a CPU's as once measured."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from tav.errors import InvalidConfig
from tav.memory import Precision

GIB = 2**30
CUDA_CONTEXT_BYTES = int(0.6 * GIB)
"""What a process takes on a GPU before its first tensor; assumed."""


class Device(BaseModel):
    """One device in one precision."""

    name: str
    kind: Literal["cpu", "cuda"]
    memory_bytes: int
    """For one process, its context included."""
    flops: float
    """Per second, in matrix products."""
    attention: float
    """Operations per second too, in attention, which a CPU spends on exponentials."""
    bandwidth: float
    """Bytes per second that elementwise operations write."""
    link: float
    """Bytes per second between it and the host's memory."""
    operation_seconds: float
    """Of the smallest operation: what launching one costs."""


# Ray's accelerator types: memory in GiB, dense matrix TFLOP/s in fp32 (TF32 off) and in 16 bits, memory bandwidth in TB/s;
# from the makers' data sheets. A100 alone may be either.
_DATA_SHEETS = {
    "T4": (16, 8.1, 65, 0.32),
    "L4": (24, 30.3, 121, 0.30),
    "A10G": (24, 31.2, 70, 0.60),
    "L40S": (48, 91.6, 362, 0.864),
    "A100": (40, 19.5, 312, 1.555),
    "A100-40G": (40, 19.5, 312, 1.555),
    "A100-80G": (80, 19.5, 312, 2.0),
    "H100": (80, 67.0, 989, 3.35),
    "H200": (141, 67.0, 989, 4.8),
}
KNOWN = ("cpu", *_DATA_SHEETS)
_LAUNCH_SECONDS = 8e-6  # of a CUDA kernel from Python, assumed
LINK = 20e9
"""Bytes per second over PCIe 4 x16, assumed."""


def known(name: str, precision: Precision) -> Device:
    """Return a GPU by Ray's name of its type, or `cpu`: one thread of the CPU that the packaged figures were measured on, with
    the memory of this machine.

    Raises:
        InvalidConfig: no such name.
    """
    if name == "cpu":
        return Device(kind="cpu", memory_bytes=host_memory(), **measurements()["reference"][precision])
    if name not in _DATA_SHEETS:
        raise InvalidConfig(f"no device {name!r} is known: take one of {', '.join(KNOWN)}")
    memory, single, half, bandwidth = _DATA_SHEETS[name]
    flops = (single if precision == "fp32" else half) * 1e12
    return Device(
        name=name,
        kind="cuda",
        memory_bytes=memory * GIB,
        flops=flops,
        attention=flops,
        bandwidth=bandwidth * 1e12 / 2,  # an elementwise operation reads what it writes, at least
        link=LINK,
        operation_seconds=_LAUNCH_SECONDS,
    )


def host_memory() -> int:
    """Return the bytes that this process can have in all: what is free and what it holds already. Linux."""
    available = kernel_figure("/proc/meminfo", "MemAvailable") + kernel_figure("/proc/self/status", "VmRSS")
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.exists() and (text := limit.read_text().strip()).isdigit():
        available = min(available, int(text))
    return available


def kernel_figure(path: str, key: str) -> int:
    """Read bytes from a `Key:  123 kB` line of a file in /proc."""
    line = next(line for line in Path(path).read_text().splitlines() if line.startswith(key + ":"))
    return int(line.split()[1]) * 1024


@cache
def measurements() -> dict[str, Any]:
    """Read the packaged figures: how real runs compare with the counts, and the CPU that they ran on."""
    figures: dict[str, Any] = json.loads(files("tav.estimate").joinpath("measured.json").read_text())
    return figures
