"""Builder of deploy/Containerfile without a container engine: each stage is a Debian root file system under chroot.

    sudo python -m tools.build_rootfs --out /var/tmp/tav-image [--pip-config /etc/pip.conf --share /opt/wheels]

It needs root and `debootstrap`, and prints the time of each step and what the result holds, as JSON lines.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]
CONTAINERFILE = CHECKOUT / "deploy" / "Containerfile"
_IMAGE = re.compile(r"debian:([a-z]+)-slim")
_FROM_HOST = ("/proc", "/dev", "/sys", "/etc/resolv.conf", "/etc/hosts")


@dataclass
class Stage:
    """A stage: from one FROM to the next."""

    name: str
    suite: str
    """Debian's name of the release that it starts from."""
    steps: list[tuple[str, str]] = field(default_factory=list)
    """Instructions and their arguments."""


def parse(text: str) -> list[Stage]:
    """Return a container file's stages. It may have FROM debian:…-slim, RUN, COPY, ENV, WORKDIR and USER.

    Raises:
        SystemExit: it has another instruction.
    """
    stages: list[Stage] = []
    joined = re.sub(r"\\\n\s*", " ", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE))
    for line in filter(None, map(str.strip, joined.splitlines())):
        word, _, rest = line.partition(" ")
        if word == "FROM":
            image, _, name = rest.partition(" AS ")
            if not (match := _IMAGE.fullmatch(image)):
                raise SystemExit(f"FROM {image}: only debian:…-slim can be made here.")
            stages.append(Stage(name or "last", match[1]))
        elif word in ("RUN", "COPY", "ENV", "WORKDIR", "USER") and stages:
            stages[-1].steps.append((word, rest))
        else:
            raise SystemExit(f"{line!r} is not understood.")
    return stages


class Builder:
    """Builds stages below one folder.

    Args:
        out: gets a folder for each stage, which is replaced.
        pip_config: this machine's settings of pip for the steps, if any; they are not in the result.
        share: files and folders of this machine that the steps may read, under the same names.
    """

    def __init__(self, out: Path, pip_config: Path | None, share: list[Path]) -> None:
        self.out, self.pip_config, self.share = out, pip_config, share

    def build(self, stage: Stage) -> Path:
        """Build a stage; return its root file system."""
        root = self.out / stage.name
        pristine = self.out / f"debian-{stage.suite}"
        if not pristine.exists():
            self._timed(stage, "debootstrap", ["debootstrap", "--variant=minbase", stage.suite, str(pristine)])
        shutil.rmtree(root, ignore_errors=True)
        subprocess.run(["cp", "-a", "--reflink=auto", str(pristine), str(root)], check=True)
        environment, folder, user = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, "/", "root"
        for word, rest in stage.steps:
            if word == "ENV":
                name, _, value = rest.partition("=")
                environment[name] = value
            elif word == "WORKDIR":
                folder = rest
                (root / folder.lstrip("/")).mkdir(parents=True, exist_ok=True)
            elif word == "USER":
                user = rest
            elif word == "COPY":
                self._copy(root, folder, shlex.split(rest))
            else:
                command = self.enter(root, user, f"cd {folder} && {rest}", environment | self._for_steps())
                self._timed(stage, rest, command)
        (root / ".image.json").write_text(json.dumps({"environment": environment, "folder": folder, "user": user}))
        return root

    def enter(self, root: Path, user: str, command: str, environment: dict[str, str]) -> list[str]:
        """Return a command that runs `command` in a root file system as `user`.

        Folders of this machine are mounted in a namespace of its own, so that removing the file system cannot reach them.
        """
        shared = [Path(name) for name in _FROM_HOST] + self.share
        mounts = []
        for path in shared:
            inside = root / str(path).lstrip("/")
            inside.parent.mkdir(parents=True, exist_ok=True)
            inside.mkdir(exist_ok=True) if path.is_dir() else inside.touch()
            mounts.append(f"mount --rbind {shlex.quote(str(path))} {shlex.quote(str(inside))}")
        variables = [f"{name}={value}" for name, value in environment.items()]
        chroot = ["chroot", f"--userspec={user}", str(root), "/usr/bin/env", "-i", *variables, "/bin/sh", "-ec", command]
        script = "; ".join([*mounts, f"exec {shlex.join(chroot)}"])
        return ["unshare", "--mount", "--propagation", "private", "/bin/sh", "-ec", script]

    def _copy(self, root: Path, folder: str, words: list[str]) -> None:
        source = CHECKOUT
        if words[0].startswith("--from="):
            source = self.out / words.pop(0).removeprefix("--from=")
        *paths, target = words
        into = root / os.path.join(folder, target).lstrip("/")
        for path in paths:
            original = source / path.lstrip("/")
            if original.is_dir():
                shutil.copytree(original, into, symlinks=True, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
            elif target.endswith("/"):
                into.mkdir(parents=True, exist_ok=True)
                shutil.copy2(original, into)
            else:
                into.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(original, into)

    def _for_steps(self) -> dict[str, str]:
        variables = {"DEBIAN_FRONTEND": "noninteractive"}
        return variables | ({"PIP_CONFIG_FILE": str(self.pip_config)} if self.pip_config else {})

    def _timed(self, stage: Stage, step: str, command: list[str]) -> None:
        began = time.monotonic()
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            raise SystemExit(f"{stage.name}: {step}\n{result.stdout[-2000:]}\n{result.stderr[-3000:]}")
        say(stage=stage.name, step=step[:80], seconds=round(time.monotonic() - began, 1))


def examine(builder: Builder, root: Path) -> None:
    """Print what the result holds and whether its commands run."""
    image = json.loads((root / ".image.json").read_text())

    def inside(command: str) -> str:
        entering = builder.enter(root, image["user"], f"cd {image['folder']} && {command}", image["environment"])
        result = subprocess.run(entering, capture_output=True, text=True, check=False)
        if result.returncode:
            raise SystemExit(f"{command}\n{result.stdout[-2000:]}\n{result.stderr[-3000:]}")
        return result.stdout.strip()

    weights = [*(root / "opt").rglob("*.safetensors"), *(root / "home").rglob("*.safetensors")]
    say(
        user=inside("id -un"),
        uid=int(inside("id -u")),
        version=inside("tav --version"),
        ray=inside("ray --version"),
        imports=inside(
            "python3 -c 'import services.api.app, services.tuning.tuner.run, services.sampling.deployment; print(1)'"
        )
        == "1",
        head_without_ray=inside("RAY_AUTH_MODE=disabled tav cluster head 2>&1 || true").splitlines()[-1][:120],
        writable=inside("touch /opt/tav/x 2>/dev/null && echo yes || echo no"),
        weights_outside_the_package=[str(path) for path in weights if "tav/bases/offline" not in str(path)],
        megabytes=int(subprocess.run(["du", "-smx", str(root)], capture_output=True, text=True, check=True).stdout.split()[0]),
    )


def say(**fields: object) -> None:
    """Print a line of JSON."""
    print(json.dumps(fields), flush=True)


def main() -> None:
    """Build all stages, and examine the last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pip-config", type=Path)
    parser.add_argument("--share", type=Path, action="append", default=[])
    parser.add_argument("--keep", action="store_true", help="leave the file systems")
    options = parser.parse_args()
    if os.geteuid() != 0 or shutil.which("debootstrap") is None:
        raise SystemExit("This needs root and debootstrap (on Debian: apt-get install debootstrap).")
    options.out.mkdir(parents=True, exist_ok=True)
    builder = Builder(options.out.resolve(), options.pip_config, options.share)
    began = time.monotonic()
    root = [builder.build(stage) for stage in parse(CONTAINERFILE.read_text())][-1]
    examine(builder, root)
    say(seconds=round(time.monotonic() - began, 1))
    if not options.keep:
        shutil.rmtree(options.out)


if __name__ == "__main__":
    sys.exit(main())
