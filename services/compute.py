"""The device a tuner or sampler computes on, and its base."""

import os

import torch

from services.settings import Settings
from tav import Base

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def load_base(name: str, settings: Settings) -> Base:
    """Load a base onto this process's device, in the settings' precision.

    Raises:
        BaseUnavailable: no such base.
    """
    cuda = settings.device == "cuda" or (settings.device == "auto" and torch.cuda.is_available())
    if not cuda:
        torch.set_num_threads(settings.compute_threads or os.cpu_count() or 1)
    precision = settings.precision or ("bf16" if cuda else "fp32")
    return Base.load(name, device="cuda" if cuda else "cpu", dtype=_DTYPES[precision])
