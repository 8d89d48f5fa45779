"""The device a tuner or sampler computes on, and its base."""

import torch

from services.settings import Settings
from tav import Base
from tav.memory import Precision

DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def on_cuda(settings: Settings) -> bool:
    """Whether this process computes on a GPU."""
    return settings.device == "cuda" or (settings.device == "auto" and torch.cuda.is_available())


def default_precision(settings: Settings) -> Precision:
    """The settings' precision, or the usual one of this process's device."""
    return settings.precision_on(on_cuda(settings))


def load_base(name: str, settings: Settings, precision: Precision | None = None) -> Base:
    """Load a base onto this process's device, in `precision` or the service's own.

    Raises:
        BaseUnavailable: no such base.
    """
    cuda = on_cuda(settings)
    if not cuda:
        torch.set_num_threads(settings.threads)
    return Base.load(name, device="cuda" if cuda else "cpu", dtype=DTYPES[precision or default_precision(settings)])
