"""How long things take to start, and where the time goes.

    python -m benchmarks.startup                     # imports and the inside of a sampler's and a tuner's process
    python -m benchmarks.startup --service DIR       # and the whole stack, from nothing to the first sample

Each import is a process of its own; CPU seconds tell more than wall clock on a machine that does other things. A child process
times its own phases, beginning with when it was asked for.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

REPEATS = 3
CLIP = Path(__file__).parent.parent / "examples" / "clips" / "red-ball-grass.mp4"
CAPTION = "a red ball rolling on grass"
PAUSED = "from services.runtime import collector_paused\nwith collector_paused():"
IMPORTS = {
    "nothing": "pass",
    "tav": "import tav",
    "tav_client": "import tav_client",
    "the base": "import tav; tav.Base",
    "the gateway": "import services.api.app",
    "the scheduler": "import services.tuning.scheduler.actor",
    "what deploys": "import services.platform.deploy, services.sampling.deployment",
    "a sampler": f"{PAUSED} import services.sampling.engine",
    "a sampler, collector running": "import services.sampling.engine",
    "a tuner": f"{PAUSED} import services.tuning.tuner.attempt, ray.train.torch",
    "a tuner, collector running": "import services.tuning.tuner.attempt, ray.train.torch",
}
HEAVY = ("torch", "torch._dynamo", "diffusers", "transformers", "mlflow", "ray", "deepspeed")


def imports(code: str) -> dict[str, Any]:
    """What a new process needs for it, what its end takes afterwards, and which of the heavy packages it brings."""
    told = f"import sys, time; print(time.time(), time.process_time(), *[name for name in {HEAVY} if name in sys.modules])"
    best: dict[str, Any] = dict.fromkeys(("wall_seconds", "cpu_seconds", "exit_seconds"), float("inf"))
    for _ in range(REPEATS):
        asked = time.time()
        done = subprocess.run([sys.executable, "-c", f"{code}\n{told}"], check=True, capture_output=True, text=True)
        ended = time.time()
        at, cpu, *brings = done.stdout.splitlines()[-1].split()
        for name, seconds in (("wall", float(at) - asked), ("cpu", float(cpu)), ("exit", ended - float(at))):
            best[f"{name}_seconds"] = min(best[f"{name}_seconds"], round(seconds, 3))
    return best | {"brings": brings}


class Laps:
    """Seconds from one lap to the next."""

    def __init__(self, began: float) -> None:
        self.last, self.laps = began, {}

    def lap(self, name: str) -> None:
        now = time.time()
        self.laps[name] = round(now - self.last, 3)
        self.last = now


def child(kind: str, asked: float) -> None:
    """What a tuner's or a sampler's process does until its first steps are done; printed as JSON."""
    from services.runtime import collector_paused

    laps = Laps(asked)
    laps.lap("process")
    if kind == "tuner":
        with collector_paused():
            import ray.train.torch  # noqa: F401

            from services.compute import load_base
            from services.settings import Settings
            from services.tuning.tuner.attempt import Attempt  # noqa: F401 - what a tuner imports besides
            from tav import Clip, Tuner

        laps.lap("imports")
        base = load_base("offline", Settings(device="cpu", compute_threads=1))
        laps.lap("base")
        compile_kernels()
        laps.lap("compiled kernels")
        tuner = Tuner(base)
        laps.lap("network and optimizer")
        clip = Clip.read(CLIP, CAPTION, 8, (64, 64))
        laps.lap("clip")
        steps: list[float] = []
        tuner.tune(clip, base.tune_config(steps=3), on_step=lambda progress: steps.append(progress.seconds))
        laps.lap("encoding and three steps")
    else:
        with collector_paused():
            from ray import serve  # noqa: F401 - it is there already

            from services.compute import load_base
            from services.sampling.engine import Engine  # noqa: F401 - what a sampler imports
            from services.settings import Settings
            from tav import Sampler

        laps.lap("imports")
        base = load_base("offline", Settings(device="cpu", compute_threads=1))
        laps.lap("base")
        compile_kernels()
        laps.lap("compiled kernels")
        sampler = Sampler(base)
        laps.lap("network")
        from benchmarks.method import delta_of
        from tav import Clip

        delta = delta_of(base, sampler.net, Clip.read(CLIP, CAPTION, 8, (64, 64)))
        laps.lap("a delta")
        steps = []
        sampler.sample(CAPTION, delta=delta, on_step=lambda progress: steps.append(progress.seconds))
        laps.lap("a video")
    first = {"first_step_seconds": round(steps[0], 3), "later_step_seconds": round(min(steps[1:]), 3)}
    print(json.dumps({"seconds": laps.laps, **first}))


def compile_kernels() -> None:
    """What a first attention does besides: compile, or find what was compiled."""
    import torch

    from tav.kernels.small_head_attention import can_use_small_head_attention

    can_use_small_head_attention(torch.zeros(1, 1, 32), 8)


def inside(kind: str) -> dict[str, Any]:
    """The child's laps in a process that must compile, and in one that finds what the first compiled."""
    with tempfile.TemporaryDirectory() as kept:
        told = {**os.environ, "TORCH_EXTENSIONS_DIR": kept}
        runs = []
        for _ in range(2):
            command = [sys.executable, "-m", "benchmarks.startup", "--child", kind, "--asked", str(time.time())]
            runs.append(subprocess.run(command, check=True, capture_output=True, text=True, env=told))
    cold, warm = (json.loads(run.stdout.splitlines()[-1]) for run in runs)
    return {"compiled_kernels_cold_seconds": cold["seconds"]["compiled kernels"], **warm}


def service(data: Path) -> dict[str, Any]:
    """Measure from an empty machine state: the stack, the first job on a tuner and video on a sampler that must start."""
    from services.platform import PlatformSettings, Stack
    from tav_client import TavClient

    subprocess.run(
        [sys.executable, "-m", "services.tuning.tuner.prebuild"], check=True, capture_output=True
    )  # as the set-up does
    stack = Stack(PlatformSettings(data_dir=data).with_free_ports(), {**os.environ, "TAV_COMPUTE_THREADS": "1"})
    laps = Laps(time.time())
    try:
        rows = stack.up()
        laps.lap("the stack")
        with TavClient(stack.client_url, timeout=600) as client:
            asked = time.time()
            job = client.jobs.create(CLIP, caption=CAPTION, params={"steps": 12}, model="startup")
            laps.lap("a job accepted")
            began: dict[str, float] = {}

            def see(snapshot: Any) -> None:
                began.setdefault(str(snapshot.phase or snapshot.status), time.time())

            job.wait(timeout=600, on_update=see)
            laps.lap("the job on a tuner that had to start")
            again = client.jobs.create(CLIP, caption=CAPTION, params={"steps": 12}, model="startup").wait(timeout=600)
            laps.lap("the same on a warm tuner")
            videos = []
            for _ in range(2):
                video_asked = time.time()
                client.videos.create(prompt="a blue ball rolling on grass", model=again.model_ref).wait(timeout=600)
                videos.append(round(time.time() - video_asked, 2))
            leased = min(at for where, at in began.items() if where != "queued") - asked
    finally:
        stack.down()
    return {
        "stack_seconds": {row.name: round(row.seconds or 0.0, 2) for row in rows},
        "seconds": laps.laps,
        "job_created_to_leased_by_a_new_tuner": round(leased, 2),
        "first_video_seconds": videos[0],
        "second_video_seconds": videos[1],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--service", type=Path, metavar="DIR", help="measure a whole stack too, in that new folder")
    parser.add_argument("--child", choices=["tuner", "sampler"], help=argparse.SUPPRESS)
    parser.add_argument("--asked", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child, args.asked)
        return
    figures: dict[str, Any] = {"imports": {name: imports(code) for name, code in IMPORTS.items()}}
    figures |= {kind: inside(kind) for kind in ("sampler", "tuner")}
    from benchmarks import record

    record.write("startup", figures, show=not args.service)
    if args.service:
        record.write("startup", figures | {"service": service(args.service)})


if __name__ == "__main__":
    main()
