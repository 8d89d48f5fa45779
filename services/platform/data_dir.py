"""A stack's data directory: all that a later command knows of the stack.

    run/NAME.json   a daemon's pid file
    logs/NAME.log   its output
    ports.json      the ports in use
    s3-keys.json    the S3 server's keys
    ray-token       what Ray asks of every process that connects
    stack.env       the variables of programs that join the stack
    stack.lock      held by `up` and `down`

Objects of S3 are in `s3/`, MLflow's database in `mlflow.db`, Ray's session in `ray/`, scratch files of tuners and samplers in
`work/`.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from services.platform.errors import PlatformError
from services.platform.processes import Record

_LONGEST_RAY_FOLDER = 40
"""Ray keeps sockets below its folder; a socket's path is limited to 107 bytes."""


@dataclass(frozen=True)
class Credentials:
    """The S3 server's only pair of keys."""

    access_key_id: str
    secret_access_key: str


class DataDir:
    """The files of one stack.

    Args:
        root: the directory, absolute; `create` makes it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def create(self) -> None:
        """Make the directory and what is always in it, for the owner alone.

        Raises:
            PlatformError: it belongs to another user.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        try:
            self.root.chmod(0o700)  # it holds clips, prompts and logs, and Ray opens its own folder to everybody
        except PermissionError as error:
            raise PlatformError(f"{self.root} is another user's: give a --data-dir of your own.") from error
        for name in ("run", "logs", "s3"):
            (self.root / name).mkdir(exist_ok=True)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Let one `up` or `down` run at a time; a second one waits."""
        with open(self.root / "stack.lock", "w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    # Daemons.

    def pid_file(self, name: str) -> Path:
        """Return the path of a daemon's pid file."""
        return self.root / "run" / f"{name}.json"

    def record(self, name: str) -> Record | None:
        """Return the content of a daemon's pid file, if it has one."""
        return Record.load(self.pid_file(name))

    def runs(self, name: str) -> bool:
        """Return whether a daemon's process lives."""
        record = self.record(name)
        return record is not None and record.process() is not None

    def log(self, name: str) -> Path:
        """Return the path of a daemon's log."""
        return self.root / "logs" / f"{name}.log"

    def mark(self, name: str = "") -> str:
        """Return the mark of a daemon's processes; without a name, what the marks of all begin with."""
        return f"{self.root}:{name}"

    # Ports, secrets and variables.

    def ports(self) -> dict[str, int]:
        """Return the ports in use by their fields in `PlatformSettings`; empty before the first `up`."""
        with contextlib.suppress(OSError, ValueError):
            ports = json.loads((self.root / "ports.json").read_text())
            return {str(field): int(port) for field, port in ports.items()}
        return {}

    def save_ports(self, ports: Mapping[str, int]) -> None:
        """Store the ports in use."""
        self._write("ports.json", json.dumps(ports))

    def s3_keys(self) -> Credentials:
        """Return the S3 server's keys, which are drawn at first use."""
        path = self.root / "s3-keys.json"
        if not path.exists():
            self._write(path.name, json.dumps({"id": f"tav{secrets.token_hex(8)}", "secret": secrets.token_urlsafe(30)}))
        keys = json.loads(path.read_text())
        return Credentials(keys["id"], keys["secret"])

    def ray_token(self) -> Path:
        """Return the path of Ray's token, which is drawn at first use."""
        path = self.root / "ray-token"
        if not path.exists():
            self._write(path.name, secrets.token_hex(32))
        return path

    def save_variables(self, variables: Mapping[str, str]) -> None:
        """Write `stack.env`, which a shell can read."""
        self._write("stack.env", "".join(f"{name}={shlex.quote(value)}\n" for name, value in variables.items()))

    def variables(self) -> dict[str, str]:
        """Return what `stack.env` holds.

        Raises:
            PlatformError: there is none, because the stack does not run.
        """
        try:
            text = (self.root / "stack.env").read_text()
        except FileNotFoundError:
            start = shlex.join(["tav", "platform", "up", "--data-dir", str(self.root)])
            raise PlatformError(
                f"No stack runs in {self.root}: start it with `{start}`, or name another's --data-dir."
            ) from None
        return {name: value for name, _, value in (line.partition("=") for line in shlex.split(text))}

    def remove_variables(self) -> None:
        """Remove `stack.env`: the stack does not run any more."""
        (self.root / "stack.env").unlink(missing_ok=True)

    def _write(self, name: str, text: str) -> None:
        """Replace a file in one step; only its owner can read it."""
        path = self.root / f".{name}.part"
        path.unlink(missing_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
        path.replace(self.root / name)

    # Ray's folder.

    @property
    def ray_folder(self) -> Path:
        """Ray's own folder: its logs, and the addresses of its metrics for Prometheus."""
        inside = self.root / "ray"
        if len(str(inside)) <= _LONGEST_RAY_FOLDER:
            return inside
        digest = hashlib.sha256(str(self.root).encode()).hexdigest()[:8]
        return Path(tempfile.gettempdir()) / f"tav-{digest}" / "ray"

    def renew_ray_folder(self) -> None:
        """Remove Ray's folder, and make its parent, which is closed to others: Ray opens its folder to everybody.

        Raises:
            PlatformError: the parent belongs to another user.
        """
        shutil.rmtree(self.ray_folder, ignore_errors=True)
        self.remove_outer_ray_folder()
        parent = self.ray_folder.parent
        if parent != self.root:
            try:
                parent.mkdir(mode=0o700)
            except FileExistsError as error:
                raise PlatformError(f"{parent} is somebody else's: remove it, or use a shorter --data-dir.") from error

    def remove_outer_ray_folder(self) -> None:
        """Remove Ray's folder where it is outside the data directory."""
        if self.ray_folder.parent != self.root:
            shutil.rmtree(self.ray_folder.parent, ignore_errors=True)
