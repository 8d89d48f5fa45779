"""Machines made of kernel namespaces: each has its own network, processes, host name, home folder and /tmp/ray.

What happens in one is what happens on a machine of a cluster: `ray stop` ends that machine's Ray alone, loopback is its own,
its cable can be pulled, and ending its first process ends everything that runs on it, as a loss of power does.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest

import services
from tests.eventually import eventually

CHECKOUT = Path(services.__file__).parents[1]


def require_namespaces() -> None:
    """Skip, and say why, where this user may not make machines."""
    for program in ("ip", "unshare", "nsenter"):
        if shutil.which(program) is None:
            pytest.skip(f"machines of namespaces need `{program}`: tools/system-packages.sh installs it (iproute2, util-linux)")
    tried = subprocess.run(
        ["unshare", "--net", "--pid", "--fork", "--mount-proc", "ip", "link", "add", "probe", "type", "bridge"],
        capture_output=True,
        text=True,
        check=False,
    )
    if tried.returncode:
        pytest.skip(f"machines of namespaces need root with CAP_SYS_ADMIN and CAP_NET_ADMIN: {tried.stderr.strip()}")


class Network:
    """A switch; this side of it has the address `host`, and every machine one of its own."""

    def __init__(self) -> None:
        number = os.getpid() % 60_000
        self.prefix = f"10.{100 + number // 250}.{number % 250}"
        self.bridge = f"tav{number}"
        self.host = f"{self.prefix}.1"
        self.machines: list[Machine] = []
        run("ip", "link", "add", self.bridge, "type", "bridge")
        run("ip", "address", "add", f"{self.host}/24", "dev", self.bridge)
        run("ip", "link", "set", self.bridge, "up")

    def machine(self, name: str) -> Machine:
        """A new machine, running, with an empty home folder."""
        machine = Machine(name, self, f"{self.prefix}.{len(self.machines) + 2}")
        self.machines.append(machine)
        machine.start()
        return machine

    def close(self) -> None:
        """End all machines, and take the switch away."""
        for machine in self.machines:
            machine.kill()
            shutil.rmtree(machine.disk)
        run("ip", "link", "delete", self.bridge)


class Machine:
    """One of them. Its disk, which has `home`, outlives it."""

    def __init__(self, name: str, network: Network, address: str) -> None:
        self.name, self.address = name, address
        self.disk = Path(tempfile.mkdtemp(prefix=f"tav-{name}-", dir="/tmp"))
        self.home = self.disk / "home"
        self.home.mkdir()
        self._network = network
        self._cable = f"{network.bridge}-{address.rpartition('.')[2]}"
        self._first: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Switch it on."""
        Path("/tmp/ray").mkdir(exist_ok=True)
        namespaces = ["--net", "--pid", "--mount", "--uts", "--fork", "--mount-proc", "--kill-child"]
        self._first = subprocess.Popen(["unshare", *namespaces, "sleep", "infinity"], stdin=subprocess.DEVNULL)
        run("ip", "link", "add", self._cable, "type", "veth", "peer", "name", "eth0", "netns", str(self._pid()))
        run("ip", "link", "set", self._cable, "master", self._network.bridge, "up")
        temporary = self.disk / "tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        (self.disk / "hosts").write_text(f"127.0.0.1 localhost\n{self.address} {self.name}\n")
        self.run(
            f"hostname {self.name}; mount --bind {temporary} /tmp/ray; mount --bind {self.disk / 'hosts'} /etc/hosts; "
            "ip link set lo up; ip link set eth0 up; "
            f"ip address add {self.address}/24 dev eth0; ip route add default via {self._network.host}"
        )

    def run(self, command: str, environment: Mapping[str, str] | None = None, seconds: float = 240) -> str:
        """What a shell that has just logged in there prints for a command, which must succeed."""
        clean = {
            "HOME": str(self.home),
            # Ours last, so that what is compiled is compiled by the programs that the other tests find, and not twice.
            "PATH": f"/usr/sbin:/usr/bin:/sbin:/bin:{Path(sys.executable).parent}",
            "LANG": "C.UTF-8",
        }
        clean["PYTHONPATH"] = f"{CHECKOUT}:{CHECKOUT / 'clients' / 'python'}"
        enter = ["nsenter", "--target", str(self._pid()), "--net", "--pid", "--mount", "--uts", f"--wd={self.home}"]
        log = self.disk / "commands.log"
        with log.open("w+b") as output:  # a file: daemons that a command leaves behind would keep a pipe open
            done = subprocess.run(
                [*enter, "bash", "-c", command],
                env=clean | dict(environment or {}),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                timeout=seconds,
                check=False,
            )
        text = log.read_text(errors="replace")
        assert done.returncode == 0, f"{self.name}: {command}\n{text[-4000:]}"
        return text

    def processes(self) -> list[str]:
        """The titles of what runs there."""
        mine = os.readlink(f"/proc/{self._pid()}/ns/pid")
        commands = []
        for process in psutil.process_iter():
            try:
                if os.readlink(f"/proc/{process.pid}/ns/pid") == mine:
                    commands.append(" ".join(process.cmdline()))
            except (OSError, psutil.Error):
                continue
        return commands

    def cut_off(self) -> None:
        """Pull its cable: packets are lost without an answer."""
        run("ip", "link", "set", self._cable, "down")

    def plug_in(self) -> None:
        """And put it back."""
        run("ip", "link", "set", self._cable, "up")

    def kill(self) -> None:
        """Switch it off without a warning."""
        if self._first is not None:
            self._first.kill()
            self._first.wait()
            self._first = None
            # It would go by itself, but only when the kernel has given up the connections of those who were killed.
            run("ip", "link", "delete", self._cable)

    def _pid(self) -> int:
        """Of its first process, as it is seen from here."""
        assert self._first is not None, f"{self.name} is off"
        children = Path(f"/proc/{self._first.pid}/task/{self._first.pid}/children")
        first = eventually(lambda: children.read_text().strip(), f"{self.name} has no first process")
        return int(first.split()[0])


def run(*command: str) -> None:
    """A command that must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
