"""The one-machine stack: bring up what is missing, report what runs, take everything down.

A stack is known by its data directory alone, so that a later command goes on from where an earlier one stopped.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from pydantic import SecretStr

from registry.errors import StorageUnavailable
from services.platform import daemons, ports, processes
from services.platform.daemons import TITLES, Daemon
from services.platform.data_dir import DataDir
from services.platform.errors import PartFailed, PlatformError
from services.platform.settings import LOOPBACK, PORTS, PlatformSettings
from services.platform.supervisor import Supervisor
from services.settings import Settings
from tav.errors import InvalidConfig

PARTS = ("s3", "mlflow", "ray", "services")
"""In the order of starting. The services are no daemon: they run on Ray."""

_SERVING_SECONDS = 3600
"""Timeout of a request to `mlflow models serve`; its default is a minute, and sampling often takes longer."""
_LOOPBACK_ONLY = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""With 0, Ray listens on loopback alone; every process that joins it needs the same. Otherwise Ray replaces a loopback address
by one that other machines reach, and listens on all. The name is from systems where Ray has no clusters."""


@dataclass(frozen=True)
class PartStatus:
    """One row of `status`."""

    name: str
    state: str
    """`running`, `stopped`, `starting` (it lives but does not answer) or `crashed` (its pid file names a dead process)."""
    pid: int | None
    address: str | None
    seconds: float | None = None
    """How long `up` waited for it; None when it ran already."""


class Stack:
    """The stack of one data directory.

    Args:
        settings: ports and places; default: those of `TAV_*`.
        environment: what the daemons inherit; default: this process's own.
    """

    def __init__(self, settings: PlatformSettings | None = None, environment: Mapping[str, str] | None = None) -> None:
        self._platform = settings or PlatformSettings()
        self.root = self._platform.root
        self._data = DataDir(self.root)
        self._inherited = dict(os.environ if environment is None else environment)
        self._supervisor = Supervisor(self._data, self._inherited)

    # What it does.

    def up(self, parts: Iterable[str] = PARTS, say: Callable[[str], None] = lambda _: None) -> list[PartStatus]:
        """Start what is missing of `parts`, in order, and return when all of them answer.

        Args:
            parts: names out of `PARTS`; each needs those before it.
            say: called with a line per part.
        """
        names = [name for name in PARTS if name in set(parts)]
        self._data.create()
        with self._data.lock():
            self._choose_ports(names)
            _check_exposure(self.settings())
            self._data.save_variables(self.environment())
            starting = {name: self._daemon(name) for name in names if name != "services"}  # all at once, awaited in order
            began = monotonic()
            fresh = {name for name, daemon in starting.items() if self._supervisor.start(daemon)}
            rows: list[PartStatus] = []
            for name in names:
                if name == "services":
                    began = monotonic()
                    fresh |= {name} if self._deploy() else set()
                else:
                    self._supervisor.wait(starting[name], self._platform.ready_seconds, stop_if_late=name in fresh)
                seconds = monotonic() - began if name in fresh else None
                rows.append(self._status(name, seconds))
                state = "already running" if seconds is None else f"ready after {seconds:.1f} s"
                say(f"{name}: {state} ({rows[-1].address})")
            return rows

    def status(self) -> list[PartStatus]:
        """Return every part as it is now."""
        return [self._status(name) for name in PARTS]

    def down(self, say: Callable[[str], None] = lambda _: None) -> None:
        """Stop everything in reverse order, check that no process is left, and keep the data."""
        if not self.root.is_dir():
            return
        with self._data.lock():
            for name in reversed(PARTS):
                if count := self._supervisor.stop(name):
                    say(f"{name}: stopped ({count} process{'es' if count > 1 else ''})")
            self._supervisor.stop_rest()
            self._data.remove_variables()
            self._data.remove_outer_ray_folder()

    def gc(self) -> str:
        """Remove the rows of runs that were deleted in MLflow for good, and return what MLflow's command printed.

        Raises:
            PlatformError: the stack does not run, or the command failed.
        """
        if not self._status("mlflow").address or self._status("s3").state != "running":
            raise PlatformError("MLflow and S3 do not run: start them with `tav platform up`, then try again.")
        command, environment = daemons.mlflow_gc(self._database(), self.mlflow_url, self.settings())
        result = subprocess.run(command, env={**self._inherited, **environment}, capture_output=True, text=True, check=False)
        if result.returncode:
            raise PlatformError(f"`mlflow gc` failed: {result.stderr.strip()[-500:]}")
        return result.stdout.strip()

    # What others need of it.

    @property
    def client_url(self) -> str:
        """The gateway, as a client on this machine reaches it."""
        return daemons.gateway_url(self.settings())

    @property
    def mlflow_url(self) -> str:
        """The MLflow UI."""
        return f"http://{LOOPBACK}:{self._ports()['mlflow_port']}"

    @property
    def runs_url(self) -> str:
        """The page of all runs in the MLflow UI; MLflow has to run."""
        from registry.tracking import Runs  # brings mlflow

        runs = Runs(self.settings(), "tuning", "job")
        return runs.settings.run_url(runs.experiment_id)

    @property
    def ray_address(self) -> str:
        """What `ray.init` takes."""
        return f"{LOOPBACK}:{self._ports()['ray_port']}"

    @property
    def ray_folder(self) -> Path:
        """Ray's own folder: its logs, and the addresses of its metrics for Prometheus."""
        return self._data.ray_folder

    def settings(self) -> Settings:
        """Return the services' settings with this stack's MLflow, S3, host and port."""
        chosen, keys = self._ports(), self._data.s3_keys()
        base: dict[str, Any] = {"base": self._platform.base} if self._platform.base else {}
        return Settings(
            mlflow_tracking_uri=self.mlflow_url,
            s3_endpoint_url=f"http://{LOOPBACK}:{chosen['s3_port']}",
            s3_bucket=self._platform.s3_bucket,
            s3_access_key_id=keys.access_key_id,
            s3_secret_access_key=SecretStr(keys.secret_access_key),
            host=self._platform.host,
            port=chosen["port"],
            serve_port=chosen["serve_port"],
            work_dir=self.root / "work",
            **base,
        )

    def environment(self) -> dict[str, str]:
        """Return the variables of the services and of programs that join the stack, from this process's settings."""
        settings = self.settings()
        return {
            **settings.environment(),
            "TAV_DATA_DIR": str(self.root),
            "TAV_URL": self.client_url,
            "RAY_ADDRESS": self.ray_address,
            _LOOPBACK_ONLY: self._inherited.get(_LOOPBACK_ONLY, "0"),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self._data.ray_token()),
            "MLFLOW_TRACKING_URI": settings.mlflow_tracking_uri,
            "MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT": str(_SERVING_SECONDS),
            **daemons.s3_environment(settings),
        }

    def joined(self) -> dict[str, str]:
        """Return the variables of programs that join the stack, as `up` wrote them: with the settings that it had.

        Raises:
            PlatformError: the stack does not run.
        """
        return self._data.variables()

    def log(self, name: str) -> Path:
        """Return the path of a part's log."""
        return self._data.log(name)

    # How.

    def _ports(self) -> dict[str, int]:
        return {**self._platform.ports(), **self._data.ports()}

    def _choose_ports(self, names: Iterable[str]) -> None:
        """Choose a port of its own for every part that is to start; a running one keeps its port."""
        last, chosen = self._data.ports(), self._platform.ports()
        for name, field in PORTS:
            host = self._platform.host if field == "port" else LOOPBACK
            if self._data.runs("ray" if name == "services" else name) and field in last:
                chosen[field] = last[field]
            elif name in names or chosen[field] == 0:
                flag = "--" + field.replace("_", "-")
                others = {port for other, port in chosen.items() if other != field}
                chosen[field] = ports.choose(chosen[field], last.get(field), host, TITLES[name], flag, others)
        if len(set(chosen.values())) < len(chosen):
            raise PlatformError(f"Two parts would share a port ({chosen}). Give each its own, or use --free-ports.")
        self._data.save_ports(chosen)

    def _daemon(self, name: str) -> Daemon:
        chosen, settings = self._ports(), self.settings()
        if name == "s3":
            return daemons.s3(self.root, chosen["s3_port"], self._data.s3_keys(), settings)
        if name == "mlflow":
            return daemons.mlflow(self._database(), LOOPBACK, chosen["mlflow_port"], settings)
        environment = {**self._inherited, **self.environment()}
        return daemons.ray(self._platform, self._data.ray_folder, chosen["ray_port"], environment, self.log("ray"))

    def _deploy(self) -> bool:
        """Deploy the services onto Ray unless they answer, and return whether it did."""
        ready = f"{self.client_url}/readyz"
        record = self._data.record("ray")
        head = record.process() if record else None
        if head is None:
            raise PlatformError("The services need Ray. Start it too: leave out --part, or name ray as well.")
        if daemons.http_ok(ready):
            return False
        command, environment = daemons.deployment({**self._inherited, **self.environment()})
        log, seconds = self.log("services"), self._platform.ready_seconds
        process = self._supervisor.spawn("services", command, environment)
        try:
            processes.wait_done(process, seconds, "the services' start", log)
            processes.wait_ready(head, lambda: daemons.http_ok(ready), seconds, TITLES["services"], log)
        except PartFailed:
            self._supervisor.stop("services")
            raise
        return True

    def _status(self, name: str, seconds: float | None = None) -> PartStatus:
        known = bool(self._data.ports())
        if name == "services":
            up = known and self._data.runs("ray") and daemons.http_ok(f"{self.client_url}/readyz")
            return PartStatus(name, "running" if up else "stopped", None, self.client_url if up else None, seconds)
        record = self._data.record(name)
        if record is None or not known:
            return PartStatus(name, "stopped", None, None)
        if record.process() is None:
            return PartStatus(name, "crashed", record.pid, None)
        state = "running" if ports.answers(record.port, LOOPBACK) else "starting"
        scheme = "" if name == "ray" else "http://"
        return PartStatus(name, state, record.pid, f"{scheme}{LOOPBACK}:{record.port}", seconds)

    def _database(self) -> str:
        database = self._platform.mlflow_database
        return f"sqlite:///{self.root / 'mlflow.db'}" if database is None else database.get_secret_value()


def _check_exposure(settings: Settings) -> None:
    """Make the gateway's own check, before anything starts.

    Raises:
        PlatformError: the gateway would refuse the settings.
    """
    from services.api.exposure import check_credentials  # `status` does not need the gateway's packages

    try:
        check_credentials(settings)
    except InvalidConfig as error:
        raise PlatformError(str(error)) from error
    except StorageUnavailable:
        pass  # the keys are in the stack's own S3, which is about to start; the deployment checks them again
