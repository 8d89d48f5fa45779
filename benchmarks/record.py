"""What a measurement must say about itself."""

from __future__ import annotations

import json
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"
_PACKAGES = ("torch", "diffusers", "ray", "safetensors")


def machine() -> dict[str, Any]:
    """Hardware and versions."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.machine(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "load_average": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        **{name: version(name) for name in _PACKAGES},
    }


def write(name: str, figures: dict[str, Any], out: Path = RESULTS, show: bool = True) -> str:
    """`<name>.json`: the command, which is returned, the machine as it is now, and the figures."""
    module = name.replace("-", "_")
    command = " ".join(["python -m", f"benchmarks.{module}", *sys.argv[1:]])
    record = {"command": command, "machine": machine(), **figures}
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
    if show:
        print(json.dumps(record, indent=1))
    return command
