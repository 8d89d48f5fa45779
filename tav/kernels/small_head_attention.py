"""Attention with small heads on a CPU, of 4 or 8 channels, as the shipped base has them.

torch's fused attention multiplies matrices block by block, and products over so few numbers cost it up to ten times what
the scores themselves do. `small_head_attention.cpp` computes scores, softmax and output in registers instead, in fp32. It is
compiled at first use (two seconds of g++, kept in torch's folder for extensions) for the machine it runs on.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tav.precision import DTYPES

log = logging.getLogger(__name__)

WIDTHS = (4, 8)
"""Of heads that are computed here; from 16 on, torch is as fast."""
_WORTH_A_THREAD = 1 << 18
"""Scores; fewer are computed before a thread has started."""
_SOURCE = Path(__file__).with_suffix(".cpp")
_COMMAND = ["g++", "-std=c++17", "-O3", "-march=native", "-shared", "-fPIC", "-pthread", "-Wno-psabi"]


class _Problems(ctypes.Structure):
    _fields_ = (
        ("batch", ctypes.c_int64),
        ("heads", ctypes.c_int64),
        ("queries", ctypes.c_int64),
        ("keys", ctypes.c_int64),
        ("scale", ctypes.c_float),
        ("threads", ctypes.c_int),
    )


def can_use_small_head_attention(query: Tensor, heads: int) -> bool:
    """Return whether `small_head_attention` takes such queries: on a CPU, of real content, with heads of one of `WIDTHS`."""
    if torch.compiler.is_compiling():  # kernels of ours end a graph
        return False
    fits = query.device.type == "cpu" and query.shape[-1] // heads in WIDTHS and query.dtype in DTYPES.values()
    return fits and type(query) is Tensor and _kernels() is not None


def small_head_attention(query: Tensor, key: Tensor, value: Tensor, heads: int, scale: float) -> Tensor:
    """Attend with multiple heads: `[B, Nq, C]`, `[B, Nk, C]`, `[B, Nk, C]` -> `[B, Nq, C]`, differentiable once.

    Computed in fp32, whatever the tensors are in. As exact as torch's, and the same bits whatever the number of threads.
    """
    out: Tensor = _Attention.apply(query, key, value, heads, scale)
    return out


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, heads: int, scale: float) -> Tensor:
        ctx.dtype = query.dtype
        query, key, value = (tensor.float().contiguous() for tensor in (query, key, value))
        out, sums = torch.empty_like(query), query.new_empty(len(query), heads, query.shape[1])
        _call("forward", query, key, heads, scale, query, key, value, out, sums)
        ctx.save_for_backward(query, key, value, out, sums)
        ctx.heads, ctx.scale = heads, scale
        return out.to(ctx.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, out, sums = ctx.saved_tensors
        of_keys = any(ctx.needs_input_grad[1:3])  # the first block's keys, and all prompts', depend on nothing that is tuned
        gradients = [torch.empty_like(query), *((torch.empty_like(key), torch.empty_like(value)) if of_keys else (None, None))]
        tensors = (query, key, value, out, sums, gradient.float().contiguous(), *gradients)
        _call("backward", query, key, ctx.heads, ctx.scale, *tensors)
        return *(None if tensor is None else tensor.to(ctx.dtype) for tensor in gradients), None, None


def _call(what: str, query: Tensor, key: Tensor, heads: int, scale: float, *tensors: Tensor | None) -> None:
    batch, queries, width = query.shape
    scores = batch * heads * queries * key.shape[1]
    threads = torch.get_num_threads() if scores >= _WORTH_A_THREAD else 1
    problems = _Problems(batch, heads, queries, key.shape[1], scale, threads)
    pointers = [None if tensor is None else ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors]
    getattr(_kernels(), f"{what}_{width // heads}")(ctypes.byref(problems), *pointers)


@cache
def _kernels() -> ctypes.CDLL | None:
    """Load the compiled kernels; None where they cannot be compiled, and torch's attention has to do."""
    try:
        return ctypes.CDLL(str(_compiled()))
    except (OSError, RuntimeError, subprocess.CalledProcessError) as error:  # RuntimeError: a user without a home
        reason = error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else error
        log.warning(
            "attention of the offline base is several times slower than it could be: install g++, and let "
            "TORCH_EXTENSIONS_DIR be a folder that can be written (%s)",
            reason,
        )
        return None


def _compiled() -> Path:
    """Return the library for this source, compiler and processor."""
    folder = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or Path.home() / ".cache" / "torch_extensions") / "tav"
    compiler = subprocess.run([_COMMAND[0], "--version"], check=True, capture_output=True, text=True).stdout
    parts = (_SOURCE.read_text(), *_COMMAND, compiler, platform.machine(), _processor())
    library = folder / f"small_head_attention-{hashlib.sha256('|'.join(parts).encode()).hexdigest()[:16]}.so"
    if not library.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as own:  # several processes may compile at once: the last one's stays
            built = Path(own) / library.name
            subprocess.run([*_COMMAND, str(_SOURCE), "-o", str(built)], check=True, capture_output=True, text=True)
            built.replace(library)
    return library


def _processor() -> str:
    """Return what instructions there are, as far as the system says."""
    known = Path("/proc/cpuinfo")
    lines = known.read_text().splitlines() if known.exists() else [platform.processor()]
    return next((line for line in lines if line.startswith(("flags", "Features"))), lines[0])
