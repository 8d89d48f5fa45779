"""The whole service under load on one machine: samplers from zero to N and back, and what callers see of it.

    python -m benchmarks.load                        # 2 samplers, 40 videos of 10 steps by 6 callers at a time
    python -m benchmarks.load --samplers 1 --videos 10

A stack of its own is started with the offline base; one clip is tuned for two versions; then callers ask synchronously, each
for the next video as soon as it has one. Latencies are of whole HTTP requests. Cold: no sampler runs when the request comes.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median, quantiles
from typing import Any

os.environ["RAY_AUTH_MODE"] = "token"  # Ray reads it once, when it is imported

import ray
from ray import serve
from ray.serve.schema import ReplicaState

from benchmarks import record
from services.platform import PlatformConfig, Stack
from services.platform.deploy import APPLICATION
from services.sampling.deployment import deployment_name
from tav_client import TavClient

CLIP = Path(__file__).parent.parent / "examples" / "clips" / "red-ball-grass.mp4"
_PAUSE = 0.1


class Watch:
    """How many samplers run, asked all the time, and since when."""

    def __init__(self, base: str) -> None:
        self._name, self._began = deployment_name(base), time.monotonic()
        self._changed = threading.Condition()
        self._end = threading.Event()
        self.counts: list[tuple[float, int]] = []
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while not self._end.wait(_PAUSE):
            states = serve.status().applications[APPLICATION].deployments[self._name].replica_states
            with self._changed:
                count = states.get(ReplicaState.RUNNING, 0)
                if not self.counts or self.counts[-1][1] != count:
                    self.counts.append((time.monotonic(), count))
                    self._changed.notify_all()

    def until(self, count: int, seconds: float) -> float:
        """When there were so many, as of `time.monotonic`."""
        with self._changed:
            if not self._changed.wait_for(lambda: bool(self.counts) and self.counts[-1][1] == count, seconds):
                raise SystemExit(f"There were not {count} samplers within {seconds:g} s, but {self.counts}.")
            return self.counts[-1][0]

    def first(self, count: int, after: float) -> float | None:
        """Seconds from `after` until so many ran."""
        return next((round(at - after, 1) for at, found in self.counts if at >= after and found >= count), None)

    def stop(self) -> None:
        """Ask no more."""
        self._end.set()


def measure(client: TavClient, watch: Watch, args: argparse.Namespace) -> dict[str, Any]:
    """Cold, warm, and under load."""
    versions = ["load/1", "load/2"]

    def draw(number: int) -> float:
        began = time.monotonic()
        client.videos.sync(
            model=versions[number % 2], prompt="a blue ball rolling on grass", num_inference_steps=args.steps, seed=number
        )
        return time.monotonic() - began

    watch.until(0, 300)
    cold = draw(0)
    warm = [draw(number) for number in range(6)]
    watch.until(0, 300)
    began = time.monotonic()
    with ThreadPoolExecutor(args.callers) as pool:
        latencies = list(pool.map(draw, range(args.videos)))
    ended = time.monotonic()
    gone = watch.until(0, 300)
    cuts = quantiles(latencies, n=100)
    return {
        "cold_s": round(cold, 1),
        "warm_median_s": round(median(warm), 2),
        "load": {
            "videos": len(latencies),
            "failed": 0,  # a request that fails ends the measurement
            "seconds": round(ended - began, 1),
            "latency_s": {"p50": round(cuts[49], 2), "p90": round(cuts[89], 2), "p99": round(cuts[98], 2)},
            "from_0_to": {str(n): watch.first(n, began) for n in range(1, args.samplers + 1)},
            "back_to_0_after_s": round(gone - ended, 1),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samplers", type=int, default=2, help="at most")
    parser.add_argument("--videos", type=int, default=40)
    parser.add_argument("--callers", type=int, default=6)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--idle-seconds", type=float, default=10, help="after which a sampler without work ends")
    parser.add_argument("--out", type=Path, default=record.RESULTS)
    args = parser.parse_args()
    os.environ |= {
        "TAV_SAMPLER_MAX_REPLICAS": str(args.samplers),
        "TAV_SAMPLER_IDLE_SECONDS": str(args.idle_seconds),
        "TAV_SAMPLER_CPUS": "0.5",
        "TAV_COMPUTE_THREADS": "1",
        "TAV_TUNER_IDLE_SECONDS": "1",
    }
    with tempfile.TemporaryDirectory() as folder:
        stack = Stack(PlatformConfig(data_dir=Path(folder)).with_free_ports())
        try:
            stack.up(say=print)
            os.environ |= {name: value for name, value in stack.environment().items() if name.startswith("RAY_")}
            ray.init(address=stack.ray_address, namespace="tav", log_to_driver=False)
            client = TavClient(stack.client_url, timeout=600)
            tuned = {"steps": 10, "num_frames": 4}
            jobs = [
                client.jobs.create(CLIP, caption="a red ball rolling on grass", model="load", params=tuned) for _ in range(2)
            ]
            for job in jobs:
                job.wait(timeout=600)
            watch = Watch(stack.settings().base)
            figures = measure(client, watch, args)
            watch.stop()
            ray.shutdown()
        finally:
            stack.down()
    setting = {"base": "offline", "frames": 4, **{name: value for name, value in vars(args).items() if name != "out"}}
    record.write("load", {**setting, **figures}, args.out)


if __name__ == "__main__":
    main()
