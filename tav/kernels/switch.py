"""Which operators run as kernels.

`TAV_KERNELS=off` leaves every operator to torch, as it was before there were kernels. Kernels in Triton run on CUDA; on a CPU
only in Triton's interpreter (`TRITON_INTERPRET=1`), which is for tests.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

log = logging.getLogger(__name__)

_suspended = False
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def triton_takes(*tensors: Tensor) -> bool:
    """Return whether Triton kernels can run on these tensors: real, of one device that has Triton, in a float type."""
    first = tensors[0]
    if not kernels_enabled() or first.dtype not in DTYPES or any(tensor.device != first.device for tensor in tensors):
        return False
    if any(type(tensor) is not Tensor and type(tensor) is not torch.nn.Parameter for tensor in tensors):
        return False  # traced, faked or distributed: without content of its own
    return first.is_cuda if not interpreted() else first.device.type == "cpu"


def interpreted() -> bool:
    """Return whether Triton interprets its kernels on the CPU."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def wants_channels_last(device: torch.device) -> bool:
    """Return whether activations on this device shall lie channels last, as the kernels want them."""
    return kernels_enabled() and device.type == ("cpu" if interpreted() else "cuda")


@contextmanager
def kernels_off() -> Iterator[None]:
    """Leave every operator to torch while open, for comparisons. Of the whole process."""
    global _suspended
    _suspended = True
    try:
        yield
    finally:
        _suspended = False


def kernels_enabled() -> bool:
    """Return whether kernels are wanted, and there is what runs them."""
    return not _suspended and _installed()


@cache
def _installed() -> bool:
    choice = os.environ.get("TAV_KERNELS", "on")
    if choice not in ("on", "off"):
        log.warning("TAV_KERNELS is %r, which is neither 'on' nor 'off': kernels are on", choice)
    if choice == "off":
        log.info("kernels are off: torch computes every operator")
        return False
    if find_spec("triton") is None:
        if torch.cuda.is_available():
            log.warning("kernels are off: there is no Triton, so torch computes every operator")
        return False
    return True
