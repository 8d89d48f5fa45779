"""The one-machine stack: bring up what is missing, tell what runs, take everything down.

All it knows is in the data directory: `run/*.json` are pid files, `ports.json` the ports, `s3-keys.json` the S3
keys, `ray-token` what Ray asks of whoever connects, `stack.env` the settings for programs that want to join. A second
command, later, goes on from there.
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
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from pydantic import SecretStr

from registry.errors import StorageUnavailable
from services.platform import daemons as make
from services.platform import ports, processes
from services.platform.daemons import Credentials, Part
from services.platform.errors import PartFailed, PlatformError
from services.platform.processes import MARK, Record
from services.platform.settings import LOOPBACK, PORTS, PlatformSettings
from services.runtime import ENVIRONMENT
from services.settings import Settings
from tav.errors import InvalidConfig

PARTS = ("s3", "mlflow", "ray", "services")
"""In the order of starting."""

_PORT_OF = {"s3": "s3_port", "mlflow": "mlflow_port", "ray": "ray_port", "services": "port"}
_TITLE = {"s3": "the S3 server", "mlflow": "the MLflow server", "ray": "the Ray head", "services": "the gateway"}
_SERVING_SECONDS = 3600
"""After which `mlflow models serve` gives a request up; by itself it does after a minute, which many a sampling exceeds."""
ALONE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""With 0, Ray listens on loopback alone, and all that join it must have it, too. Otherwise it replaces a loopback address by
one that other machines reach, and listens to all. The name is from systems where Ray has no clusters."""
_LONGEST_RAY_FOLDER = 40
"""Ray keeps sockets below its folder; a socket's path is limited to 107 bytes."""


@dataclass(frozen=True)
class PartStatus:
    """One row of `status`."""

    name: str
    state: str
    """`running`, `stopped`, `starting` (it lives but does not answer) or `crashed` (its pid file names a dead process)."""
    pid: int | None
    address: str | None
    seconds: float | None = None
    """After how long `up` found it ready; None when it ran already."""


class Stack:
    """The stack of one data directory.

    Args:
        config: Ports and places.
        environment: What the daemons inherit; default: this process's own.
    """

    def __init__(self, config: PlatformSettings | None = None, environment: Mapping[str, str] | None = None) -> None:
        self.config = config or PlatformSettings()
        self.root = self.config.root
        self._inherited = dict(os.environ if environment is None else environment)

    # What it does.

    def up(self, parts: Iterable[str] = PARTS, say: Callable[[str], None] = lambda _: None) -> list[PartStatus]:
        """Start what is missing of `parts`, in order, and return when all of them answer.

        Args:
            parts: Names out of `PARTS`; each needs those before it.
            say: Gets a line per part.
        """
        wanted = [name for name in PARTS if name in set(parts)]
        self._make_folders()
        with self._lock():
            chosen = self._choose_ports(wanted)
            _check_exposure(self._settings(chosen))
            self._write_env(chosen)
            daemons = [self._part(name, chosen) for name in wanted if name != "services"]
            began = monotonic()
            fresh = {part.name for part in daemons if self._start(part)}
            rows: list[PartStatus] = []
            for name in wanted:
                if name == "services":
                    began = monotonic()
                    fresh |= {name} if self._deploy(chosen) else set()
                else:
                    self._await(daemons[len(rows)], stop_if_late=name in fresh)
                rows.append(self._row(name, chosen, monotonic() - began if name in fresh else None))
                took = rows[-1].seconds
                say(f"{name}: {'already running' if took is None else f'ready after {took:.1f} s'} ({rows[-1].address})")
            return rows

    def status(self) -> list[PartStatus]:
        """Every part as it is now."""
        return [self._row(name, self._ports()) for name in PARTS]

    def down(self, say: Callable[[str], None] = lambda _: None) -> None:
        """Stop everything in reverse order, see that no process is left, and keep the data."""
        if not self.root.is_dir():
            return
        with self._lock():
            for name in reversed(PARTS):
                record = Record.load(self._pid_file(name))
                count = processes.stop(record, self._mark(name), self._grace(name), _TITLE[name])
                self._pid_file(name).unlink(missing_ok=True)
                if count:
                    say(f"{name}: stopped ({count} process{'es' if count > 1 else ''})")
            processes.stop(None, self._mark(), 5.0, "the stack")
            (self.root / "stack.env").unlink(missing_ok=True)
            if not self._ray_folder().is_relative_to(self.root):
                shutil.rmtree(self._ray_folder().parent, ignore_errors=True)

    def gc(self) -> str:
        """Remove for good the rows of runs that were deleted in MLflow; what its command says.

        Raises:
            PlatformError: the stack does not run, or the command failed.
        """
        chosen = self._ports()
        if not self._row("mlflow", chosen).address or self._row("s3", chosen).state != "running":
            raise PlatformError("MLflow and S3 do not run: start them with `tav platform up`, then try again.")
        command, environment = make.mlflow_gc(self._database(), self.mlflow_url, self._settings(chosen))
        done = subprocess.run(command, env={**self._inherited, **environment}, capture_output=True, text=True, check=False)
        if done.returncode:
            raise PlatformError(f"`mlflow gc` failed: {done.stderr.strip()[-500:]}")
        return done.stdout.strip()

    # What others need of it.

    @property
    def client_url(self) -> str:
        """The gateway, as a client on this machine reaches it."""
        host = LOOPBACK if self.config.host in ("0.0.0.0", "::") else self.config.host
        scheme = "https" if self.settings().tls_certfile else "http"
        return f"{scheme}://{host}:{self._ports().get('port', self.config.port)}"

    @property
    def mlflow_url(self) -> str:
        """The MLflow UI."""
        return f"http://{LOOPBACK}:{self._ports().get('mlflow_port', self.config.mlflow_port)}"

    @property
    def runs_url(self) -> str:
        """The page of all runs in the MLflow UI, which runs."""
        from registry.tracking import Runs  # brings mlflow

        runs = Runs(self.settings(), "tuning", "job")
        return runs.settings.run_url(runs.experiment_id)

    @property
    def ray_address(self) -> str:
        """What `ray.init` takes."""
        return f"{LOOPBACK}:{self._ports().get('ray_port', self.config.ray_port)}"

    @property
    def ray_folder(self) -> Path:
        """Ray's own: its logs, and the addresses of its metrics for Prometheus."""
        return self._ray_folder()

    def settings(self) -> Settings:
        """The services' settings with this stack's MLflow, S3, host and port."""
        return self._settings({**self.config.ports(), **self._ports()})

    def environment(self) -> dict[str, str]:
        """The settings as variables, as `stack.env` has them."""
        return self._environment({**self.config.ports(), **self._ports()})

    def joined(self) -> dict[str, str]:
        """The variables for programs that want to join, as `up` wrote them: with what it was told besides.

        Raises:
            PlatformError: the stack does not run.
        """
        try:
            text = (self.root / "stack.env").read_text()
        except FileNotFoundError:
            start = shlex.join(["tav", "platform", "up", "--data-dir", str(self.root)])
            raise PlatformError(
                f"No stack runs in {self.root}: start it with `{start}`, or name another's --data-dir."
            ) from None
        return {name: value for name, _, value in (line.partition("=") for line in shlex.split(text))}

    def log(self, name: str) -> Path:
        """A part's log."""
        return self.root / "logs" / f"{name}.log"

    # How.

    def _part(self, name: str, chosen: Mapping[str, int]) -> Part:
        keys, settings = self._keys(), self._settings(chosen)
        if name == "s3":
            return make.s3(self.root, chosen["s3_port"], keys, settings)
        if name == "mlflow":
            return make.mlflow(self._database(), LOOPBACK, chosen["mlflow_port"], settings)
        environment = {**self._inherited, **self._environment(chosen)}
        return make.ray(self.config, self._ray_folder(), chosen["ray_port"], environment, self.log("ray"))

    def _start(self, part: Part) -> bool:
        """Start a part unless it runs; True when it was started. All start at once and are waited for in order."""
        record = Record.load(self._pid_file(part.name))
        if record is not None and record.process() is not None:
            return False
        processes.stop(record, self._mark(part.name), part.grace_seconds, part.title)
        if part.name == "ray":
            self._renew_ray_folder()
        part.prepare()
        started = processes.spawn(part.command, self._daemon_environment(part.name, part.env), self.log(part.name))
        port = int(part.address.rpartition(":")[2])
        Record(started.pid, started.create_time(), port, part.command).save(self._pid_file(part.name))
        return True

    def _await(self, part: Part, stop_if_late: bool) -> None:
        """Return when a part answers. One that was just started and does not is stopped again."""
        record = Record.load(self._pid_file(part.name))
        running = record.process() if record else None
        if running is None:
            log = self.log(part.name)
            self._pid_file(part.name).unlink(missing_ok=True)
            raise PartFailed(f"{part.title} ended before it was ready. The end of its log, {log}:\n{processes.tail(log)}")
        try:
            processes.wait_ready(running, part.ready, self.config.ready_seconds, part.title, self.log(part.name))
        except PartFailed:
            if stop_if_late:
                processes.stop(record, self._mark(part.name), part.grace_seconds, part.title)
                self._pid_file(part.name).unlink(missing_ok=True)
            raise

    def _deploy(self, chosen: Mapping[str, int]) -> bool:
        """Put the services onto Ray unless they answer; the one-shot that does it ends before this returns."""
        ready = f"{self.client_url}/readyz"
        record = Record.load(self._pid_file("ray"))
        head = record.process() if record else None
        if head is None:
            raise PlatformError("The services need Ray. Start it too: leave out --part, or name ray as well.")
        if make.http_ok(ready):
            return False
        environment = {**self._inherited, **self._environment(chosen)}
        environment["PYTHONPATH"] = make.python_path(environment.get("PYTHONPATH", ""))
        environment |= ENVIRONMENT
        log = self.log("services")
        command = [sys.executable, "-m", "services.platform.deploy"]
        one_shot = processes.spawn(command, self._daemon_environment("services", environment), log)
        try:
            processes.wait_done(one_shot, self.config.ready_seconds, "the services' start", log)
            processes.wait_ready(head, lambda: make.http_ok(ready), self.config.ready_seconds, "the gateway", log)
        except PartFailed:
            processes.stop(None, self._mark("services"), 5.0, _TITLE["services"])
            raise
        return True

    def _row(self, name: str, chosen: Mapping[str, int], seconds: float | None = None) -> PartStatus:
        port = chosen.get(_PORT_OF[name])
        if name == "services":
            up = port is not None and self._alive("ray") and make.http_ok(f"{self.client_url}/readyz")
            return PartStatus(name, "running" if up else "stopped", None, self.client_url if up else None, seconds)
        record = Record.load(self._pid_file(name))
        if record is None or port is None:
            return PartStatus(name, "stopped", None, None)
        if record.process() is None:
            return PartStatus(name, "crashed", record.pid, None)
        state = "running" if ports.answers(record.port, LOOPBACK) else "starting"
        scheme = "" if name == "ray" else "http://"
        return PartStatus(name, state, record.pid, f"{scheme}{LOOPBACK}:{record.port}", seconds)

    def _choose_ports(self, wanted: Iterable[str]) -> dict[str, int]:
        """A running part keeps its port; the others get theirs, each different."""
        known, chosen = self._ports(), dict(self.config.ports())
        for name, field in PORTS:
            host = self.config.host if field == "port" else LOOPBACK
            if self._alive("ray" if name == "services" else name) and field in known:
                chosen[field] = known[field]
            elif name in wanted or chosen[field] == 0:
                flag = "--" + field.replace("_", "-")
                others = {port for other, port in chosen.items() if other != field}
                chosen[field] = ports.choose(chosen[field], known.get(field), host, _TITLE[name], flag, others)
        if len(set(chosen.values())) < len(chosen):
            raise PlatformError(f"Two parts would share a port ({chosen}). Give each its own, or use --free-ports.")
        self._write_private("ports.json", json.dumps(chosen))
        return chosen

    def _alive(self, name: str) -> bool:
        record = Record.load(self._pid_file(name))
        return record is not None and record.process() is not None

    def _ports(self) -> dict[str, int]:
        with contextlib.suppress(OSError, ValueError):
            found = json.loads((self.root / "ports.json").read_text())
            return {str(name): int(port) for name, port in found.items()}
        return {}

    def _database(self) -> str:
        given = self.config.mlflow_database
        return f"sqlite:///{self.root / 'mlflow.db'}" if given is None else given.get_secret_value()

    def _keys(self) -> Credentials:
        path = self.root / "s3-keys.json"
        if not path.exists():
            self._write_private(
                path.name, json.dumps({"id": f"tav{secrets.token_hex(8)}", "secret": secrets.token_urlsafe(30)})
            )
        found = json.loads(path.read_text())
        return Credentials(found["id"], found["secret"])

    def _settings(self, chosen: Mapping[str, int]) -> Settings:
        keys = self._keys()
        base: dict[str, Any] = {"base": self.config.base} if self.config.base else {}
        return Settings(
            mlflow_tracking_uri=f"http://{LOOPBACK}:{chosen['mlflow_port']}",
            s3_endpoint_url=f"http://{LOOPBACK}:{chosen['s3_port']}",
            s3_bucket=self.config.s3_bucket,
            s3_access_key_id=keys.access_key_id,
            s3_secret_access_key=SecretStr(keys.secret_access_key),
            host=self.config.host,
            port=chosen["port"],
            serve_port=chosen["serve_port"],
            work_dir=self.root / "work",
            **base,
        )

    def _environment(self, chosen: Mapping[str, int]) -> dict[str, str]:
        settings = self._settings(chosen)
        return {
            **settings.environment(),
            "TAV_DATA_DIR": str(self.root),
            "TAV_URL": self.client_url,
            "RAY_ADDRESS": f"{LOOPBACK}:{chosen['ray_port']}",
            ALONE: self._inherited.get(ALONE, "0"),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self._ray_token()),
            "MLFLOW_TRACKING_URI": settings.mlflow_tracking_uri,
            "MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT": str(_SERVING_SECONDS),
            **make.s3_environment(settings),
        }

    def _write_env(self, chosen: Mapping[str, int]) -> None:
        lines = [f"{name}={shlex.quote(value)}" for name, value in self._environment(chosen).items()]
        self._write_private("stack.env", "\n".join(lines) + "\n")

    def _daemon_environment(self, name: str, extra: Mapping[str, str]) -> dict[str, str]:
        direct = ",".join(filter(None, [self._inherited.get("NO_PROXY", ""), LOOPBACK, "localhost"]))
        own = {MARK: self._mark(name), "NO_PROXY": direct, "no_proxy": direct, "PYTHONUNBUFFERED": "1"}
        return {**self._inherited, **extra, **own}

    def _ray_token(self) -> Path:
        path = self.root / "ray-token"
        if not path.exists():
            self._write_private(path.name, secrets.token_hex(32))
        return path

    def _mark(self, name: str = "") -> str:
        return f"{self.root}:{name}"

    def _pid_file(self, name: str) -> Path:
        return self.root / "run" / f"{name}.json"

    def _ray_folder(self) -> Path:
        inside = self.root / "ray"
        if len(str(inside)) <= _LONGEST_RAY_FOLDER:
            return inside
        digest = hashlib.sha256(str(self.root).encode()).hexdigest()[:8]
        return Path(tempfile.gettempdir()) / f"tav-{digest}" / "ray"

    def _renew_ray_folder(self) -> None:
        """Ray opens its folder to everybody, so it is in one that is closed."""
        folder = self._ray_folder()
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.is_relative_to(self.root):
            shutil.rmtree(folder.parent, ignore_errors=True)
            try:
                folder.parent.mkdir(mode=0o700)
            except FileExistsError as e:
                raise PlatformError(f"{folder.parent} is somebody else's: remove it, or use a shorter --data-dir.") from e

    @staticmethod
    def _grace(name: str) -> float:
        return 20.0 if name == "ray" else 10.0

    def _make_folders(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        try:
            self.root.chmod(0o700)  # clips, prompts and logs are in it, and Ray's folder, which Ray makes for everybody
        except PermissionError as e:
            raise PlatformError(f"{self.root} is another user's: give a --data-dir of your own.") from e
        for name in ("run", "logs", "s3"):
            (self.root / name).mkdir(parents=True, exist_ok=True)

    def _write_private(self, name: str, text: str) -> None:
        path = self.root / f".{name}.part"
        path.unlink(missing_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
        path.replace(self.root / name)

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        """One `up` or `down` at a time; a second one waits."""
        with open(self.root / "stack.lock", "w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _check_exposure(settings: Settings) -> None:
    """The gateway's own check, before anything is started."""
    from services.api.auth import check_door  # the gateway's packages are not needed to tell the status

    try:
        check_door(settings)
    except InvalidConfig as e:
        raise PlatformError(str(e)) from e
    except StorageUnavailable:
        pass  # the keys are in the stack's own S3, which is about to start; the deployment looks again
