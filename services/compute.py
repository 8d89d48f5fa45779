"""What the service computes on: its devices, as far as they are known where nothing is computed, and its bases there.

Imports no torch by itself, so that the gateway can ask.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ray

from services.settings import Settings
from tav.estimate import Device, probes
from tav.estimate.device import KNOWN, known
from tav.memory import Precision

if TYPE_CHECKING:
    from tav import Base

_TYPE = "accelerator_type:"


def on_cuda(settings: Settings) -> bool:
    """Return whether this process computes on a GPU."""
    import torch

    return settings.device == "cuda" or (settings.device == "auto" and torch.cuda.is_available())


def default_precision(settings: Settings) -> Precision:
    """Return the settings' precision, or the usual one of this process's device."""
    return settings.precision_on(on_cuda(settings))


def load_base(name: str, settings: Settings, precision: Precision | None = None) -> Base:
    """Load a base onto this process's device, in `precision` or the service's own.

    Raises:
        BaseUnavailable: no such base.
    """
    import torch

    from tav import Base
    from tav.precision import DTYPES

    cuda = on_cuda(settings)
    if not cuda:
        torch.set_num_threads(settings.threads)
    return Base.load(name, device="cuda" if cuda else "cpu", dtype=DTYPES[precision or default_precision(settings)])


def likely_device(settings: Settings) -> str | None:
    """Return what samplers, and tuners of jobs without a GPU type, compute on; None: not known before they start."""
    if settings.device == "cpu":
        return "cpu"
    cluster = ray.cluster_resources() if ray.is_initialized() else {}
    types = settings.gpu_types or [name.removeprefix(_TYPE) for name in sorted(cluster) if name.startswith(_TYPE)]
    device = next((name for name in types if name in KNOWN), None)
    if device is None and settings.device == "auto" and not cluster.get("GPU"):
        return "cpu"
    return device


def described(name: str, precision: Precision, settings: Settings) -> Device:
    """Return a device in one precision: a GPU by its type, or `cpu`, this machine's, probed once. Blocks.

    Raises:
        InvalidConfig: no such device.
    """
    return probes.cpu(precision, settings.threads) if name == "cpu" else known(name, precision)


def sampler_memory(settings: Settings, device: Device) -> int:
    """Return the bytes that one sampler may take of that device: what is set, or its share of the GPU, or of its node's memory.

    Args:
        settings: the service's.
        device: with all of its memory.
    """
    if settings.sampler_memory is not None:
        return int(settings.sampler_memory)
    if device.kind == "cuda":
        return int(device.memory_bytes * min(1.0, settings.sampler_gpus))
    shares = [_share(node, settings) for node in _nodes() if node.get("CPU", 0) >= settings.sampler_cpus]
    return int(max(shares, default=device.memory_bytes))


def tuner_memory(settings: Settings) -> int | None:
    """Return the bytes that a tuner on CPUs can have at most: those of the node with most memory. None: no node is known."""
    memory = max((node["memory"] for node in _nodes() if node.get("CPU", 0) >= settings.tuner_cpus), default=None)
    return None if memory is None else int(memory)


def _nodes() -> list[dict[str, Any]]:
    """What Ray hands out on each node."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]] if ray.is_initialized() else []


def _share(node: dict[str, Any], settings: Settings) -> float:
    """Of a node's memory, for each sampler that may be there."""
    most = settings.sampler_max_replicas * len(settings.served_bases)
    places = int(node["CPU"] / settings.sampler_cpus) if settings.sampler_cpus else most
    return float(node["memory"]) / max(1, min(most, places))
