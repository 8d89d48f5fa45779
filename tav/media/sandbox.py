"""The kernel's fence around this process (Landlock, Linux 5.13 and later): what is named is readable, and nothing else is.

From then on it opens no other file, not even its parent's environment in /proc, traces no process, and with newer kernels opens
no TCP connection (6.7) and sends no signal (6.12). What is open stays open. No right and no privilege are needed.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from pathlib import Path

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the numbers are the same on every architecture
_VERSION, _PATH_BENEATH, _NO_NEW_PRIVILEGES = 1, 1, 38
_READ_FILE, _READ_FOLDER = 1 << 2, 1 << 3
_FILES = ((5, 0xFFFF), (3, 0x7FFF), (2, 0x3FFF), (1, 0x1FFF))
"""By version, what can be done to files and folders; all of it is forbidden."""
_TCP, _SCOPES = 0b11, 0b11
"""Binding and connecting; abstract sockets and signals."""


def fence_version() -> int:
    """Return the version of the kernel's Landlock; 0: it has none, or does not let this process use it."""
    return max(_call(_CREATE_RULESET, None, 0, _VERSION), 0) if sys.platform == "linux" else 0


def fence_in(*readable: str | Path) -> bool:
    """Leave this process, for good, nothing but these files and folders to read.

    Returns:
        Whether the kernel does it.
    """
    version = fence_version()
    if not version:
        return False
    files = next(rights for least, rights in _FILES if version >= least)
    ruleset = struct.pack("=QQQ", files, _TCP if version >= 4 else 0, _SCOPES if version >= 6 else 0)
    rules = _call(_CREATE_RULESET, ruleset, 24 if version >= 6 else 16 if version >= 4 else 8, 0)
    if rules < 0:
        return False
    try:
        allowed = all(_allow(rules, path) for path in readable)
        held = ctypes.CDLL(None).prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) == 0
        return allowed and held and _call(_RESTRICT_SELF, rules, 0) == 0
    finally:
        os.close(rules)


def _allow(rules: int, path: str | Path) -> bool:
    rights = _READ_FILE | _READ_FOLDER if os.path.isdir(path) else _READ_FILE
    file = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        return _call(_ADD_RULE, rules, _PATH_BENEATH, struct.pack("=Qi", rights, file), 0) == 0
    finally:
        os.close(file)


def _call(*arguments: int | bytes | None) -> int:
    return int(ctypes.CDLL(None).syscall(*(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments)))
