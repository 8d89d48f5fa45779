"""Processes that outlive the command that started them, and that a later command finds and stops.

Each daemon leads its own session and carries the stack's mark in its environment. Its children inherit both, so that what it
started is found even after it has died. Ray's workers change their titles, which overwrites the environment that others can
read, but stay in the session; a driver has a session of its own, but keeps the mark.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic

import psutil

from services.platform.errors import LeftBehind, PartFailed

MARK = "TAV_STACK_MARK"
"""Environment variable that names the stack and the part that a process belongs to."""

_POLL_SECONDS = 0.1
_LOG_LINES = 25


@dataclass(frozen=True)
class Record:
    """A daemon's pid file: enough to tell it from a later process with the same pid."""

    pid: int
    created: float
    port: int
    command: list[str]

    def save(self, path: Path) -> None:
        """Replace the pid file in one step."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(asdict(self)))
        part.replace(path)

    @classmethod
    def load(cls, path: Path) -> Record | None:
        """Return the pid file's content; None if there is none, or it is not a pid file."""
        try:
            return cls(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def process(self) -> psutil.Process | None:
        """Return the running daemon; None if it has ended."""
        try:
            process = psutil.Process(self.pid)
            if abs(process.create_time() - self.created) < 1 and not _reaped(process):
                return process
        except psutil.Error:
            pass
        return None


def spawn(command: Sequence[str], env: Mapping[str, str], log: Path) -> psutil.Process:
    """Start a daemon in a session of its own, with its output in `log`; the former log becomes `….log.1`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists():
        log.replace(log.with_name(f"{log.name}.1"))
    files = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    return psutil.Process(os.posix_spawn(command[0], list(command), dict(env), file_actions=files, setsid=True))


def wait_ready(process: psutil.Process, ready: Callable[[], bool], seconds: float, title: str, log: Path) -> None:
    """Return once `ready()` is true.

    Raises:
        PartFailed: the process ended before that, or `seconds` have passed; the message ends with its log.
    """
    deadline = monotonic() + seconds
    while not ready():
        if _ended(process, _POLL_SECONDS):
            raise PartFailed(f"{title} ended before it was ready. The end of its log, {log}:\n{tail(log)}")
        if monotonic() > deadline:
            raise PartFailed(_late(title, seconds, log))


def wait_done(process: psutil.Process, seconds: float, title: str, log: Path) -> None:
    """Return once a child has ended with exit code 0.

    Raises:
        PartFailed: it failed, or `seconds` have passed; the message ends with its log.
    """
    try:
        code = process.wait(timeout=seconds)
    except psutil.TimeoutExpired as error:
        raise PartFailed(_late(title, seconds, log)) from error
    if code != 0:
        raise PartFailed(f"{title} failed. The end of its log, {log}:\n{tail(log)}")


def marked(mark: str) -> list[psutil.Process]:
    """Return all processes whose mark starts with `mark`, except this one and its ancestors."""
    own = {os.getpid(), *(p.pid for p in psutil.Process().parents())}
    members = []
    for process in psutil.process_iter():
        if process.pid in own:
            continue
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(MARK, "").startswith(mark) and not _reaped(process):
                members.append(process)
    return members


def stop(record: Record | None, mark: str, grace_seconds: float, title: str) -> int:
    """End a daemon and everything that it started; return how many processes that were.

    The daemon gets SIGTERM first, so that it can end its children in its own order; then what is left gets it, then SIGKILL.

    Args:
        record: the daemon's pid file; the daemon itself may be dead.
        mark: what the marks of its processes begin with.
        grace_seconds: how long the daemon gets to end by itself.
        title: its name in an error.

    Raises:
        LeftBehind: a process survived SIGKILL.
    """
    family = _family(record, mark)
    count = len(family)
    leader = record.process() if record else None
    if leader is not None:
        _signal([leader], signal.SIGTERM)
        psutil.wait_procs([leader], timeout=grace_seconds)
    for sig, seconds in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 10.0)):
        family = [p for p in {*family, *_family(record, mark)} if p.is_running() and not _reaped(p)]
        if not family:
            return count
        _signal(family, sig)
        psutil.wait_procs(family, timeout=seconds)
    left = [p for p in {*family, *_family(record, mark)} if p.is_running() and not _reaped(p)]
    if left:
        raise LeftBehind(f"{title} left processes that do not end: {', '.join(str(p.pid) for p in left)}. Kill them by hand.")
    return count


def tail(log: Path, lines: int = _LOG_LINES) -> str:
    """Return the last lines of a log."""
    try:
        text = log.read_text(errors="replace")
    except OSError:
        return "(there is no log)"
    return "\n".join(text.splitlines()[-lines:])


def _late(title: str, seconds: float, log: Path) -> str:
    return (
        f"{title} was not ready within {seconds:g} seconds; TAV_READY_SECONDS gives it more. "
        f"The end of its log, {log}:\n{tail(log)}"
    )


def _family(record: Record | None, mark: str) -> list[psutil.Process]:
    """Return what carries the mark, what is in the daemon's session, and what those have started."""
    family = set(marked(mark)) | set(_session(record) if record else [])
    for process in list(family):
        with contextlib.suppress(psutil.Error):
            family.update(process.children(recursive=True))
    return list(family)


def _session(record: Record) -> list[psutil.Process]:
    members = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if os.getsid(process.pid) == record.pid and process.create_time() > record.created - 1 and not _reaped(process):
                members.append(process)
    return members


def _signal(processes: Iterable[psutil.Process], sig: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(sig)


def _ended(process: psutil.Process, seconds: float) -> bool:
    try:
        process.wait(timeout=seconds)
    except psutil.TimeoutExpired:
        return False
    except psutil.NoSuchProcess:
        return True
    return True


def _reaped(process: psutil.Process) -> bool:
    """Return whether a process has ended; an entry of a child of ours is removed."""
    with contextlib.suppress(psutil.Error):
        if process.status() != psutil.STATUS_ZOMBIE:
            return False
        with contextlib.suppress(psutil.TimeoutExpired):
            process.wait(timeout=0)
    return True
