"""Scratch folders that do not outlive their process for long, however it ends."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path


class Scratch:
    """A folder of this process's own, until `remove` or the end of a `with` block.

    A killed process leaves its folder; the next process that makes a folder of that kind removes it. A running one holds a
    lock on its folder, which the system releases when the process ends.

    Args:
        work_dir: holds it; created if it is missing.
        kind: the start of its name.
    """

    def __init__(self, work_dir: Path, kind: str) -> None:
        work_dir.mkdir(parents=True, exist_ok=True)
        for left in work_dir.glob(f"{kind}-*"):
            _remove_if_dead(left)
        folder = Path(tempfile.mkdtemp(prefix=".", dir=work_dir))
        self._lock = os.open(folder, os.O_RDONLY)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.path = work_dir / f"{kind}-{folder.name[1:]}"
        folder.rename(self.path)  # under this name only now, when it is locked

    def remove(self) -> None:
        """Remove it with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *_: object) -> None:
        self.remove()


def _remove_if_dead(folder: Path) -> None:
    with suppress(OSError):  # another one has been quicker, or its process lives
        lock = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(lock)
