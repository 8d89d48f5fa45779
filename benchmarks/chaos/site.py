"""A whole service on this machine: the stack, and worker nodes of its own on its Ray."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import psutil

from benchmarks.chaos.mounts import may_mount, mount, unmount
from services.platform import PlatformSettings, Stack, processes
from services.platform.daemons import python_path, tool
from services.platform.ports import any_free
from services.platform.processes import MARK, Record
from services.platform.settings import LOOPBACK

_SCRATCH_MIB = 8


class Site:
    """The stack with its worker nodes; tuners fit on these alone, as GPU tuners do behind a head without GPUs.

    Args:
        folder: For everything.
        base: The services' base.
        nodes: How many worker nodes, each with room for one tuner.
        environment: Settings of the services, as `TAV_*`.
    """

    def __init__(self, folder: Path, base: Path, nodes: int, environment: Mapping[str, str]) -> None:
        os.environ.update(environment, TAV_TUNER_CPUS="2", TAV_MAX_TUNERS=str(nodes), TAV_DEVICE="cpu")
        settings = PlatformSettings(data_dir=folder / "data", base=str(base), ray_cpus=1, ready_seconds=300)
        self.stack = Stack(settings.with_free_ports())
        self.nodes: dict[str, psutil.Process] = {}
        self.wanted_nodes, self.joined = nodes, 0
        self.work = self.stack.root / "work"

    def up(self) -> None:
        """Start what is not running."""
        if may_mount():
            mount(self.work, _SCRATCH_MIB)
        self.stack.up()
        os.environ["RAY_AUTH_TOKEN_PATH"] = self.stack.environment()["RAY_AUTH_TOKEN_PATH"]
        while len(self.nodes) < self.wanted_nodes:
            self.add_node()

    def down(self) -> None:
        """Stop everything, nodes too."""
        self.stack.down()
        for name in list(self.nodes):
            self.end_node(name)

    def close(self) -> None:
        """Stop everything for good."""
        self.down()
        unmount(self.work)

    def add_node(self) -> str:
        """A machine more, as far as Ray can tell."""
        self.joined += 1
        name = f"node-{self.joined}"
        command = [tool("ray"), "start", f"--address={self.stack.ray_address}", "--block", "--disable-usage-stats"]
        command += ["--num-cpus=2", f"--node-name={name}", f"--node-ip-address={LOOPBACK}", "--min-worker-port=0"]
        command += ["--max-worker-port=0", f"--dashboard-agent-listen-port={any_free(LOOPBACK)}"]
        command += [f"--object-store-memory={80 * 1024**2}"]
        environment = {**os.environ, **self.stack.environment(), "RAY_USAGE_STATS_ENABLED": "0"}
        environment["PYTHONPATH"] = python_path(environment.get("PYTHONPATH", ""))
        environment[MARK] = f"{self.stack.root}:ray-{name}"  # `down` finds it, as the rest of Ray
        self.nodes[name] = processes.spawn(command, environment, self.stack.log(name))
        return name

    def end_node(self, name: str) -> None:
        """The machine is gone, at once."""
        kill(family(self.nodes.pop(name)))

    def actors(self, title: str) -> list[psutil.Process]:
        """This site's Ray workers that are of a class."""
        record = Record.load(self.stack.root / "run" / "ray.json")
        head = record.process() if record else None
        found = []
        for leader in filter(None, [head, *list(self.nodes.values())]):
            for process in family(leader):
                with suppress(psutil.Error):
                    if " ".join(process.cmdline()).startswith(f"ray::{title}"):
                        found.append(process)
        return found


def family(leader: psutil.Process) -> list[psutil.Process]:
    """A process and all that it started."""
    with suppress(psutil.NoSuchProcess):
        return [leader, *leader.children(recursive=True)]
    return []


def kill(victims: list[psutil.Process]) -> None:
    """At once, and wait until they are gone."""
    for process in victims:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(victims, timeout=10)
