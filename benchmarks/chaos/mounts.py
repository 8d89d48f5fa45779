"""A mount namespace of its own, for a disk that can be filled."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

_OWN = "CHAOS_OWN_MOUNTS"


def with_own_mounts() -> None:
    """Run the program anew in a mount namespace, where it may mount a small disk, and which takes the mount with it.

    As root or as an ordinary user, as far as the kernel lets it; where it does not, `may_mount` stays False.
    """
    if may_mount() or (unshare := shutil.which("unshare")) is None:
        return
    for flags in (["--mount"], ["--map-root-user", "--mount"]):
        if subprocess.run([unshare, *flags, "true"], capture_output=True, check=False).returncode == 0:
            os.execve(unshare, [unshare, *flags, sys.executable, *sys.orig_argv[1:]], os.environ | {_OWN: "1"})


def may_mount() -> bool:
    """Whether this process is in a namespace of its own."""
    return _OWN in os.environ


def mount(folder: Path, mib: int) -> None:
    """Put a disk of that size there, unless there is one."""
    folder.mkdir(parents=True, exist_ok=True)
    if not folder.is_mount():
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", str(folder)], check=True)


def unmount(folder: Path) -> None:
    """Take the disk away, with what is on it."""
    if folder.is_mount():
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
