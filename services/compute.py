"""What the service computes on: the device of this process with its base, and the devices of tuners and samplers.

The gateway asks about devices that it does not have: torch is imported only by what computes in this process.
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
"""How the names of Ray's resources for GPU types begin."""


def on_cuda(settings: Settings) -> bool:
    """Return whether this process computes on a GPU. Imports torch."""
    import torch

    return settings.device == "cuda" or (settings.device == "auto" and torch.cuda.is_available())


def default_precision(settings: Settings) -> Precision:
    """Return the settings' precision, or the default one of this process's device. Imports torch."""
    return settings.precision_on(on_cuda(settings))


def load_base(name: str, settings: Settings, precision: Precision | None = None) -> Base:
    """Load a base onto this process's device. Imports torch, and on a CPU sets its threads.

    Args:
        name: a hub id, a folder, or `offline`.
        settings: the service's.
        precision: of the base; None: `default_precision`.

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
    """Return the device of samplers, and of tuners of jobs that name no GPU type: `cpu` or a GPU type.

    None where it is not known before they start: the cluster has GPUs of a type without a data sheet, or none yet.
    """
    if settings.device == "cpu":
        return "cpu"
    cluster = ray.cluster_resources() if ray.is_initialized() else {}
    types = settings.gpu_types or [name.removeprefix(_TYPE) for name in sorted(cluster) if name.startswith(_TYPE)]
    gpu_type = next((name for name in types if name in KNOWN), None)
    if gpu_type is None and settings.device == "auto" and not cluster.get("GPU"):
        return "cpu"
    return gpu_type


def device_of(name: str, precision: Precision, settings: Settings) -> Device:
    """Return a device as it is in one precision. Blocks: this machine's CPU is probed once.

    Args:
        name: a GPU type, or `cpu`.
        precision: of the network's arithmetic.
        settings: the service's, for the threads of a CPU.

    Raises:
        InvalidConfig: no such device.
    """
    return probes.cpu(precision, settings.threads) if name == "cpu" else known(name, precision)


def sampler_memory(settings: Settings, device: Device) -> int:
    """Return the bytes that one sampler may take of a device: `sampler_memory`, or its share of the GPU or of its node.

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
    """Return the bytes that a tuner on CPUs can have: those of the largest node. None where no node is known."""
    largest = max((node["memory"] for node in _nodes() if node.get("CPU", 0) >= settings.tuner_cpus), default=None)
    return None if largest is None else int(largest)


def _nodes() -> list[dict[str, Any]]:
    """Return the resources of each node."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]] if ray.is_initialized() else []


def _share(node: dict[str, Any], settings: Settings) -> float:
    """Return the bytes of a node's memory for each of the samplers that can be on it."""
    samplers = settings.sampler_max_replicas * len(settings.served_bases)
    slots = int(node["CPU"] / settings.sampler_cpus) if settings.sampler_cpus else samplers
    return float(node["memory"]) / max(1, min(samplers, slots))
