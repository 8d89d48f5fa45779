"""The life of a stack's processes: start a daemon, wait until it answers, stop it with everything that it started."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import psutil

from services.platform import processes
from services.platform.daemons import GRACE_SECONDS, TITLES, Daemon
from services.platform.data_dir import DataDir
from services.platform.errors import PartFailed
from services.platform.processes import MARK, Record
from services.platform.settings import LOOPBACK


class Supervisor:
    """Starts and stops the processes of one data directory.

    Args:
        data: holds pid files and logs.
        inherited: the environment of every process, below its own.
    """

    def __init__(self, data: DataDir, inherited: Mapping[str, str]) -> None:
        self._data = data
        self._inherited = inherited

    def start(self, daemon: Daemon) -> bool:
        """Start a daemon unless it runs, and return whether it was started. It may not answer yet."""
        if self._data.runs(daemon.name):
            return False
        self.stop(daemon.name)
        if daemon.name == "ray":
            self._data.renew_ray_folder()
        daemon.prepare()
        process = self.spawn(daemon.name, daemon.command, daemon.env)
        port = int(daemon.address.rpartition(":")[2])
        Record(process.pid, process.create_time(), port, daemon.command).save(self._data.pid_file(daemon.name))
        return True

    def spawn(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> psutil.Process:
        """Start a part's process: marked, with the part's log, and without a proxy to this machine."""
        direct = ",".join(filter(None, [self._inherited.get("NO_PROXY", ""), LOOPBACK, "localhost"]))
        own = {MARK: self._data.mark(name), "NO_PROXY": direct, "no_proxy": direct, "PYTHONUNBUFFERED": "1"}
        return processes.spawn(command, {**self._inherited, **environment, **own}, self._data.log(name))

    def wait(self, daemon: Daemon, seconds: float, stop_if_late: bool) -> None:
        """Return when a daemon answers.

        Args:
            daemon: one that `start` was called with.
            seconds: how long to wait.
            stop_if_late: stop it if it does not answer by then.

        Raises:
            PartFailed: it ended, or did not answer in time.
        """
        record, log = self._data.record(daemon.name), self._data.log(daemon.name)
        process = record.process() if record else None
        if process is None:
            self._data.pid_file(daemon.name).unlink(missing_ok=True)
            raise PartFailed(f"{daemon.title} ended before it was ready. The end of its log, {log}:\n{processes.tail(log)}")
        try:
            processes.wait_ready(process, daemon.ready, seconds, daemon.title, log)
        except PartFailed:
            if stop_if_late:
                self.stop(daemon.name)
            raise

    def stop(self, name: str) -> int:
        """Stop a part and everything that it started; return how many processes that were."""
        count = processes.stop(self._data.record(name), self._data.mark(name), GRACE_SECONDS[name], TITLES[name])
        self._data.pid_file(name).unlink(missing_ok=True)
        return count

    def stop_rest(self) -> None:
        """Stop what carries the stack's mark still, whatever part it is of."""
        processes.stop(None, self._data.mark(), 5.0, "the stack")
