"""What all processes of the service have in common: names in Ray, the environment, and how a process starts."""

from __future__ import annotations

import gc
import re
from collections.abc import Iterator
from contextlib import contextmanager

NAMESPACE = "tav"
"""Ray's namespace of our actors."""
SCHEDULER = "tav-scheduler"
"""Name of the scheduler's actor."""
HEAD = {"node:__internal_head__": 0.001}
"""Resources of actors that must not run on nodes that come and go."""

ENVIRONMENT = {
    # JSON lines, in files that do not fill the disk.
    "RAY_LOGGING_CONFIG_ENCODING": "JSON",
    "RAY_ROTATION_MAX_BYTES": str(64 << 20),
    "RAY_ROTATION_BACKUP_COUNT": "3",
    # OpenMP's threads spin for long while they wait for each other. Where another process has the core of one of them, the
    # others keep their cores busy, and a step of a tenth of a second takes several seconds.
    "GOMP_SPINCOUNT": "1000",
}

_ADDRESS = re.compile(
    r"""
    \b(?!s3:)[a-z][a-z0-9+.-]*://[^\s'")\]>,]+           # http://10.0.0.5:8265/x, ipv4://…
    | \b(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?::[0-9]+)?\b      # 10.0.0.5, 10.0.0.5:6379
    | \[[0-9a-f:]+:[0-9a-f:]*\](?::[0-9]+)?              # [fd00::2]:6379
    | \b(?:ip|host(?:name)?|node)[-_ ]?(?:address)?[:=]\s*[^\s,;)]+    # ip: head-1.internal
    """,
    re.IGNORECASE | re.VERBOSE,
)
"""Addresses of machines, as they stand in the errors of other packages, such as Ray."""


@contextmanager
def collector_paused() -> Iterator[None]:
    """Pause Python's cycle collector in the block, and exempt what there is then: for a process that starts.

    It would run over and over during imports and find next to nothing, and go through all of it again later and at the end.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def without_addresses(text: str) -> str:
    """Return the text with `…` for the addresses of machines in it."""
    return _ADDRESS.sub("…", text)
