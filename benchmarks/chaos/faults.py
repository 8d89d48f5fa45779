"""What can happen to a site.

Everything is real: processes are killed, servers are away, a disk is full because it is full, a node's preemption is announced
to Ray as a cloud's autoscaler announces it, and then the node is gone.
"""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

import psutil
import ray
from ray.core.generated.autoscaler_pb2 import DRAIN_NODE_REASON_PREEMPTION

from benchmarks.chaos.mounts import may_mount
from benchmarks.chaos.site import Site, family, kill
from services.platform.processes import Record


@dataclass(frozen=True)
class Durations:
    """Seconds."""

    s3: float = 60.0
    """S3 is away for so long."""
    disk: float = 20.0
    """The disk is full for so long."""
    notice: int = 12
    """Between a node's preemption notice and its end."""


class Faults:
    """What can happen to a site. Each answers with a word on what it did; what takes time to mend goes on meanwhile.

    Args:
        site: Where.
        rng: Chooses among several.
        durations: How long things last.
    """

    def __init__(self, site: Site, rng: random.Random, durations: Durations) -> None:
        self.site, self.rng, self.durations = site, rng, durations
        self.kinds: dict[str, Callable[[], str]] = {
            "worker": lambda: self._kill_one("RayTrainWorker"),
            "tuner": lambda: self._kill_one("TunerSupervisor", "TrainController"),
            "scheduler": lambda: self._kill_one("Scheduler"),
            "gateway": lambda: self._kill_one("ServeReplica:tav:Gateway"),
            "mlflow": lambda: self._restart("mlflow", 0.0),
            "s3": lambda: self._restart("s3", self.durations.s3),
            "head": self._head,
            "preemption": self._preemption,
        }
        if may_mount():
            self.kinds["disk"] = self._disk
        self._mending = ThreadPoolExecutor(8)
        self._open: list[Future[None]] = []
        self._announced: set[str] = set()

    def inject(self, kind: str) -> str:
        """Let it happen."""
        return self.kinds[kind]()

    def mended(self) -> None:
        """Wait until all that was to come back is back."""
        while self._open:
            self._open.pop().result()

    def _after(self, seconds: float, mend: Callable[[], object]) -> None:
        def later() -> None:
            time.sleep(seconds)
            mend()

        self._open.append(self._mending.submit(later))

    def _kill_one(self, *titles: str) -> str:
        found = [process for title in titles for process in self.site.actors(title)]
        if not found:
            return "none was there"
        victim = self.rng.choice(sorted(found, key=lambda process: process.pid))
        said = f"SIGKILL of {_title(victim)}"
        kill([victim])
        return said

    def _restart(self, part: str, seconds: float) -> str:
        record = Record.load(self.site.stack.root / "run" / f"{part}.json")
        running = record.process() if record else None
        if running is not None:
            kill(family(running))
        self._after(seconds, lambda: self.site.stack.up([part]))
        return f"SIGKILL of {part}, started again after {seconds:g} s"

    def _head(self) -> str:
        self.mended()  # a platform that is stopped starts with all its parts
        self.site.down()
        self.site.up()
        return "the platform was stopped and started again, its nodes too"

    def _disk(self) -> str:
        filler = self.site.work / "filler"
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(64 * 1024))
        with suppress(OSError), filler.open("ab", buffering=0) as file:
            while True:
                file.write(b"0")
        self._after(self.durations.disk, lambda: filler.unlink(missing_ok=True))
        return f"{shutil.disk_usage(self.site.work).free} bytes free for {self.durations.disk:g} s"

    def _preemption(self) -> str:
        """Ray hears of it as from `ray drain-node` and the autoscaler; another node comes; then this one goes."""
        staying = {name: node for name, node in list(self.site.nodes.items()) if name not in self._announced}
        busy = [name for name, node in staying.items() if any("RayTrainWorker" in _title(p) for p in family(node))]
        name = self.rng.choice(sorted(busy or staying))
        self._announced.add(name)
        gcs = ray._raylet.GcsClient(address=self.site.stack.ray_address)
        node_id = _registered(gcs, name)
        deadline = int((time.time() + self.durations.notice) * 1000)
        accepted, reason = gcs.drain_node(node_id, DRAIN_NODE_REASON_PREEMPTION, "the cloud takes it back", deadline)
        if not accepted:
            raise RuntimeError(f"Ray refused the notice: {reason}")
        self.site.add_node()
        self._after(self.durations.notice, lambda: self.site.end_node(name))
        return f"{name} announced, and ended after {self.durations.notice} s"


def _registered(gcs: ray._raylet.GcsClient, name: str) -> str:
    """A node's id, when Ray knows it."""
    for _ in range(120):
        for node_id, node in gcs.get_all_node_info().items():
            if node.node_name == name:
                return str(node_id.hex())
        time.sleep(0.5)
    raise RuntimeError(f"{name} did not join the cluster")


def _title(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return " ".join(process.cmdline()).strip()  # a worker that has changed its title has padded it
    return ""
