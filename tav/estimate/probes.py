"""What this machine's devices offer, probed once and stored, so that every estimate uses the same figures.

Stored for the user in `~/.cache/tav/devices` (or `$XDG_CACHE_HOME`); to have a machine probed anew, remove that folder.
No torch: a CPU is probed in a process of its own.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from platformdirs import user_cache_path
from pydantic import ValidationError

from tav.errors import TavError
from tav.estimate.device import Device, host_memory
from tav.memory import Precision

log = logging.getLogger(__name__)

_PROBE_SECONDS = 120


def cpu(precision: Precision, threads: int) -> Device:
    """Return this machine's CPU with so many threads, and the memory that this process can have now.

    Raises:
        TavError: with what the probing process said.
    """
    return _figures(_folder(), precision, threads).model_copy(update={"memory_bytes": host_memory()})


@cache
def _figures(folder: Path, precision: Precision, threads: int) -> Device:
    """Read or probe, and remember in this process, too, where `folder` cannot be written."""
    return stored(cpu_name(threads), precision) or store(_probed(precision, threads), precision)


def cpu_name(threads: int) -> str:
    """Name this machine's CPU, e.g. `AMD EPYC 7763, 2 threads`."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return f"{next(models, 'CPU')}, {threads} thread{'s' * (threads > 1)}"


def stored(name: str, precision: Precision) -> Device | None:
    """Read a device's figures, if it was probed before; its memory is as it was then."""
    file = _file(name, precision)
    try:
        return Device.model_validate_json(file.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        log.warning("%s cannot be read, the device is probed anew: %s", file, error)
        return None


def store(device: Device, precision: Precision) -> Device:
    """Store a probe's figures for later callers; where they cannot be stored, log it."""
    file = _file(device.name, precision)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=file.parent, delete=False) as whole:
            whole.write(device.model_dump_json())
        os.replace(whole.name, file)
    except OSError as error:
        log.warning("the figures of %s cannot be stored, the next process probes again: %s", device.name, error)
    return device


def _file(name: str, precision: Precision) -> Path:
    plain = "".join(letter if letter.isalnum() else "-" for letter in name)
    return _folder() / f"{plain}-{precision}.json"


def _folder() -> Path:
    return user_cache_path("tav") / "devices"


def _probed(precision: Precision, threads: int) -> Device:
    command = [sys.executable, "-m", "tav.estimate.measure", precision, str(threads)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PROBE_SECONDS, check=True)
    except subprocess.TimeoutExpired as error:
        raise TavError(f"this machine's CPU could not be probed within {_PROBE_SECONDS} s: try again") from error
    except subprocess.CalledProcessError as error:
        said = (error.stderr.strip().splitlines() or ["nothing"])[-1]
        raise TavError(f"this machine's CPU could not be probed; the probe said: {said}") from error
    return Device.model_validate_json(done.stdout.splitlines()[-1])
