"""How the tuning service's queue holds up: thousands of jobs, hundreds of tuners that only report, then real tiny jobs.

    python -m benchmarks.queue submit --data DIR    # 10,000 jobs by four submitters, the scheduler running, no tuner free
    python -m benchmarks.queue drain --data DIR     # the same jobs after a restart, over 200 tuners, as fast as they go
    python -m benchmarks.queue steady --data DIR    # 200 tuners, four of five at work on minute-long jobs
    python -m benchmarks.queue decide               # the scheduler's decisions alone, also at ten times that size
    python -m benchmarks.queue real --data DIR --jobs 24    # the whole stack, one real tuner, the offline base

Scheduler, Ray, MLflow (on SQLite) and S3 are real and the one-machine stack's own. A stand-in of a tuner leases, beats as
often as a tuner does, and finishes, without a tuning; a hundred of them share a process. Latency is counted from the moment
when both the job and the tuner were there to the lease in the tuner's hands, the job's start written to its run.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import quantiles
from typing import Any

# Ray reads these once, when it is imported.
os.environ |= {"RAY_AUTH_MODE": "token", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}

import numpy as np
import psutil
import ray

from benchmarks import record, turnover
from benchmarks.preload import fill
from benchmarks.standin import PER_PROCESS, StandInLauncher, StandIns
from registry.jobs import JobStore
from registry.objects import ObjectStore
from services.fair_queue import Entry
from services.platform import PlatformSettings, Stack
from services.runtime import NAMESPACE
from services.settings import Settings
from services.tuning.messages import JobClass
from services.tuning.scheduler.actor import start_scheduler
from services.tuning.scheduler.policy import JobQueue
from services.tuning.scheduler.tuners import Tuners
from tav import Video
from tav_client import TavClient
from tav_client.schemas import ClipInfo, TuningJobCreate

TENANTS = 20
_CALL = re.compile(r'"(?:GET|POST|PATCH) /api/2\.0/mlflow/([a-z-]+/[a-z-]+)')


class Watch:
    """CPU and memory of processes, and MLflow's calls, between its begin and `figures`."""

    def __init__(self, stack: Stack, scheduler: Any) -> None:
        mlflow = next(row.pid for row in stack.status() if row.name == "mlflow")
        pid = ray.get(scheduler.__ray_call__.remote(lambda self: os.getpid()))
        root = psutil.Process(mlflow)
        self.parts = {"scheduler": [psutil.Process(pid)], "mlflow": [root, *root.children(recursive=True)]}
        self.log = stack.log("mlflow")
        self.from_byte, self.began, self.cpu = self.log.stat().st_size, time.monotonic(), self._cpu()
        self.peak: Counter[str] = Counter()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def figures(self, jobs: int) -> dict[str, Any]:
        """What was used per job and per second since the begin."""
        self._stop.set()
        self._thread.join()
        seconds, cpu = time.monotonic() - self.began, self._cpu()
        calls = mlflow_calls(self.log, self.from_byte)
        return {
            "seconds": round(seconds, 1),
            **{
                name: {
                    "cpu_percent": round(100 * (cpu[name] - self.cpu[name]) / seconds, 1),
                    "cpu_ms_per_job": round(1000 * (cpu[name] - self.cpu[name]) / max(1, jobs), 1),
                    "peak_rss_mib": self.peak[name] >> 20,
                }
                for name in self.parts
            },
            "mlflow_calls_per_job": round(calls.total() / max(1, jobs), 2),
            "mlflow_calls_per_second": round(calls.total() / seconds, 1),
            "mlflow_calls": dict(calls.most_common()),
        }

    def _cpu(self) -> dict[str, float]:
        return {name: sum(sum(p.cpu_times()[:2]) for p in processes) for name, processes in self.parts.items()}

    def _look(self) -> None:
        while not self._stop.wait(1.0):
            for name, processes in self.parts.items():
                self.peak[name] = max(self.peak[name], sum(p.memory_info().rss for p in processes))


def mlflow_calls(log: Path, from_byte: int) -> Counter[str]:
    """Calls by name, from the server's own log."""
    with log.open("rb") as file:
        file.seek(from_byte)
        return Counter(_CALL.findall(file.read().decode(errors="replace")))


def spread(seconds: list[float]) -> dict[str, float]:
    """In milliseconds."""
    cuts = quantiles(seconds, n=100) if len(seconds) > 1 else seconds * 99
    return {
        "count": len(seconds),
        **{f"p{n}_ms": round(1000 * cuts[n - 1], 1) for n in (50, 90, 99)},
        "max_ms": round(1000 * max(seconds), 1),
    }


class Submitter:
    """Makes jobs as the gateway does once it has looked at a clip: the run, its artifacts, a word to the scheduler."""

    def __init__(self, settings: Settings, scheduler: Any) -> None:
        self.scheduler, self.objects = scheduler, ObjectStore(settings)
        self.jobs = JobStore(settings, self.objects)
        settings.work_dir.mkdir(parents=True, exist_ok=True)
        path = settings.work_dir / "clip.mp4"
        path.write_bytes(Video(np.full((6, 16, 16, 3), 90, np.uint8), 8).encode())
        stored = self.objects.put_clip(path)
        self.clip = ClipInfo(uri=stored.uri, sha256=stored.sha256, width=16, height=16, num_frames=6, fps=8)
        self.submitted: dict[str, float] = {}
        self.seconds: list[float] = []

    def submit(self, number: int) -> None:
        """One job, of one of some tenants."""
        began = time.monotonic()
        params = {"num_frames": 4, "size": (16, 16), "steps": 5}
        request = TuningJobCreate.model_validate({"caption": "grey", "params": params, "batch": "queue"})
        job = self.jobs.create(request, self.clip, "offline", "grey", tenant=f"tenant-{number % TENANTS}")
        self.submitted[job.id] = time.time()
        ray.get(self.scheduler.notify.remote(job))
        self.seconds.append(time.monotonic() - began)


@contextmanager
def service(args: argparse.Namespace, seconds: float) -> Iterator[tuple[Stack, Settings, Any, list[Any]]]:
    """The stack, and in it a scheduler whose tuners are stand-ins."""
    stack = Stack(PlatformSettings(data_dir=args.data).with_free_ports())
    try:
        stack.up(["s3", "mlflow", "ray"])
        os.environ.update({name: value for name, value in stack.environment().items() if name.startswith("RAY_")})
        ray.init(address=stack.ray_address, namespace=NAMESPACE, log_to_driver=False)
        settings = stack.settings().model_copy(
            update={
                "experiment": "steady" if args.part == "steady" else "queue",
                "max_tuners": args.tuners,
                "queue_deadline_seconds": None,
                "tuner_idle_seconds": 3600.0,
            }
        )
        count = -(-args.tuners // PER_PROCESS)
        processes = [StandIns.remote(seconds) for _ in range(count)]  # type: ignore[attr-defined]
        ray.get([process.seen.remote() for process in processes])
        scheduler = start_scheduler(settings, StandInLauncher(processes))
        yield stack, settings, scheduler, processes
        ray.kill(scheduler, no_restart=True)  # before its tuners, whose end it would take for failures
    finally:
        ray.shutdown()
        stack.down()


def submit(args: argparse.Namespace) -> dict[str, Any]:
    """Jobs come; none is done."""
    with service(args, 0.0) as (stack, settings, scheduler, _):
        submitter = Submitter(settings, scheduler)
        submitter.submit(0)
        watch, numbers, deadline = Watch(stack, scheduler), iter(range(1, args.jobs)), time.monotonic() + args.limit

        def work() -> None:
            for number in numbers:
                submitter.submit(number)
                if time.monotonic() > deadline:
                    return

        with ThreadPoolExecutor(args.submitters) as threads:
            for future in [threads.submit(work) for _ in range(args.submitters)]:
                future.result()
        seconds = submitter.seconds[1:]
        figures = watch.figures(len(seconds))
        return {
            "jobs": len(seconds) + 1,
            "submitters": args.submitters,
            "jobs_per_second": round(len(seconds) / figures["seconds"], 1),
            "submit": spread(seconds),
            **figures,
        }


def drain(args: argparse.Namespace) -> dict[str, Any]:
    """The jobs that are there, as fast as the service gives them out, after a start from the runs alone."""
    copied = fill(args.data / "mlflow.db", args.fill)
    with service(args, args.seconds) as (stack, _, scheduler, processes):
        began = time.monotonic()
        while not (found := ray.get(scheduler.status.remote())["jobs"]["queued"]):
            if time.monotonic() > began + 300:
                raise SystemExit("no jobs are found: submit some first, with the same --data")
            time.sleep(0.2)
        recovery = time.monotonic() - began
        watch = Watch(stack, scheduler)
        ray.get([process.begin.remote() for process in processes])
        deadline = time.monotonic() + args.limit
        while (done := _sum(processes)) < found and time.monotonic() < deadline:
            time.sleep(2)
        figures = watch.figures(done)
        leases, _ = seen(processes)
        return {
            "jobs_found_at_start": found,
            "of_these_copied_in_the_database": copied,
            "seconds_to_read_them": round(recovery, 1),
            "jobs_done": done,
            "jobs_per_second": round(done / figures["seconds"], 1),
            "lease": spread([got - asked for _, asked, got in leases]),
            **figures,
        }


def steady(args: argparse.Namespace) -> dict[str, Any]:
    """Jobs of a minute come at a pace that keeps four tuners of five at work."""
    with service(args, args.seconds) as (stack, settings, scheduler, processes):
        submitter = Submitter(settings, scheduler)
        ray.get([process.begin.remote() for process in processes])
        pace, number, begin = args.seconds / (0.8 * args.tuners), 0, time.monotonic()
        watch, skip = None, 0
        with ThreadPoolExecutor(args.submitters) as threads:
            while (now := time.monotonic()) < begin + args.seconds + args.limit:
                if watch is None and now > begin + args.seconds:  # as many jobs run as ever will
                    watch, skip, warm = Watch(stack, scheduler), len(submitter.submitted), time.time()
                threads.submit(submitter.submit, number)
                number += 1
                time.sleep(max(0.0, begin + number * pace - time.monotonic()))
            assert watch is not None
            figures = watch.figures(number - skip)
        leases, beats = seen(processes, since=warm)
        waits = [got - max(asked, submitter.submitted.get(job, asked)) for job, asked, got in leases]
        return {
            "jobs_per_second": round(1 / pace, 2),
            "lease": spread(waits),
            "beats_per_second": round(len(beats) / figures["seconds"], 1),
            "beat": spread(beats),
            "submit": spread(submitter.seconds[skip:]),
            **figures,
        }


def decide(args: argparse.Namespace) -> dict[str, Any]:
    """What giving one free tuner its next job costs the scheduler's event loop, in CPU milliseconds."""
    return {
        f"{tuners} tuners, {jobs} jobs": asyncio.run(_decisions(tuners, jobs)) for tuners, jobs in ((200, 10**4), (2000, 10**5))
    }


class _NoTuners:
    """A `tuners.Launcher` that starts nothing."""

    def launch(self, tuner_id: str, kind: JobClass) -> Any:
        """See `tuners.Launcher`."""

    def end(self, tuner_id: str) -> None:
        """See `tuners.Launcher`."""


async def _decisions(max_tuners: int, jobs: int, rounds: int = 300) -> dict[str, float]:
    queue, kind = JobQueue(), JobClass("offline")
    for number in range(jobs):
        queue.add(Entry(str(number), kind, f"tenant-{number % TENANTS}", 0, float(number)))
    tuners = Tuners(Settings(max_tuners=max_tuners, tuner_idle_seconds=3600), queue, _NoTuners())
    names = [name for name, _, _ in tuners.adapt()]
    for name in names:
        tuners.ask(name)
    held = dict(tuners.assign())
    began = time.process_time()
    for name in itertools.islice(itertools.cycle(names), rounds):  # its job ends, it asks again, and gets another
        tuners.release(name)
        queue.release(held[name])
        tuners.ask(name)
        held |= tuners.assign()
        list(tuners.adapt())
    return {"ms_per_job": round(1000 * (time.process_time() - began) / rounds, 2)}


def real(args: argparse.Namespace) -> dict[str, Any]:
    """Tiny jobs, then some of about a minute, over HTTP and on one warm tuner."""
    environment = {**os.environ, "TAV_MAX_TUNERS": "1", "TAV_COMPUTE_THREADS": "1"}
    stack = Stack(PlatformSettings(data_dir=args.data).with_free_ports(), environment)
    try:
        stack.up()
        with TavClient(stack.client_url, timeout=600) as client:
            made = {}
            for name, count, params in (
                ("tiny_jobs", args.jobs, {"steps": 12, "num_frames": 4}),
                ("long_jobs", args.long_jobs, {"steps": args.long_steps}),
            ):
                log = stack.log("mlflow")
                from_byte = log.stat().st_size
                made[name] = turnover.run(client, count, **params)
                calls = mlflow_calls(log, from_byte)
                made[name]["mlflow_calls_per_job"] = {call: round(n / (count + 1), 1) for call, n in calls.most_common()}
        return made
    finally:
        stack.down()


def seen(processes: list[Any], since: float = 0.0) -> tuple[list[tuple[str, float, float]], list[float]]:
    """What the stand-ins saw: leases as (job, asked, got), and how long each beat took."""
    all_seen = ray.get([process.seen.remote() for process in processes])
    leases = [lease for leases, _ in all_seen for lease in leases if lease[2] >= since]
    return leases, [took for _, beats in all_seen for when, took in beats if when >= since]


def _sum(processes: list[Any]) -> int:
    return sum(ray.get([process.done.remote() for process in processes]))


def keep(section: str, figures: dict[str, Any], args: argparse.Namespace) -> None:
    """`queue.json` has a section for each part, with its own command and machine."""
    path = args.out / "queue.json"
    sections = json.loads(path.read_text()) if path.exists() else {}
    command = " ".join(["python -m benchmarks.queue", *sys.argv[1:]]).replace(str(args.data), "DIR")
    sections[section] = {"command": command, "machine": record.machine(), **figures}
    path.write_text(json.dumps(sections, indent=1) + "\n")
    path.with_suffix(".md").write_text(table(sections))
    print(json.dumps(sections[section], indent=1))


def table(sections: dict[str, Any]) -> str:
    """The sections side by side."""
    parts = [name for name in ("submit", "drain", "steady") if name in sections]
    rows: dict[str, Callable[[dict[str, Any]], Any]] = {
        "jobs": lambda s: s.get("jobs") or s.get("jobs_done") or s["lease"]["count"],
        "tuners": lambda s: s["tuners"],
        "seconds of a job": lambda s: s["job_seconds"],
        "jobs per second": lambda s: s["jobs_per_second"],
        "submit, ms, p50 / p99": lambda s: f"{s['submit']['p50_ms']} / {s['submit']['p99_ms']}",
        "free tuner and job to lease, ms, p50 / p99": lambda s: f"{s['lease']['p50_ms']} / {s['lease']['p99_ms']}",
        "beats per second": lambda s: s["beats_per_second"],
        "scheduler, % of a core": lambda s: s["scheduler"]["cpu_percent"],
        "scheduler, peak MiB": lambda s: s["scheduler"]["peak_rss_mib"],
        "MLflow, % of a core": lambda s: s["mlflow"]["cpu_percent"],
        "MLflow calls per job": lambda s: s["mlflow_calls_per_job"],
        "MLflow calls per second": lambda s: s["mlflow_calls_per_second"],
        "seconds to read the open jobs at the start": lambda s: s["seconds_to_read_them"],
    }
    lines = [f"| | {' | '.join(parts)} |", "| --- |" + " --- |" * len(parts)]
    for name, cell in rows.items():
        cells = []
        for part in parts:
            try:
                cells.append(str(cell(sections[part])))
            except KeyError:
                cells.append("")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    for name in ("tiny_jobs", "long_jobs"):
        if found := sections.get("real", {}).get(name):
            of = ", ".join(f"{part} {seconds} s" for part, seconds in found["median_seconds"].items())
            line = f"{found['jobs']} real jobs {found['params']} on one warm tuner: {found['seconds_per_job']} s each ({of}); "
            lines += ["", line + f"overhead {found['overhead_seconds']['median']} s, {found['overhead_percent']} %."]
    for size, cost in sections.get("decide", {}).items():
        if isinstance(cost, dict) and "ms_per_job" in cost:
            lines += ["", f"A decision with {size}: {cost['ms_per_job']} ms."]
    commands = [f"    {section['command']}" for section in sections.values()]
    return "\n".join(["# The queue, measured", "", *lines, "", *commands, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["submit", "drain", "steady", "decide", "real"])
    parser.add_argument("--data", type=Path, help="the stack's folder; it is kept")
    parser.add_argument("--jobs", type=int, help="submit: 10000, real: 24")
    parser.add_argument("--fill", type=int, default=0, help="drain: first copy jobs until so many are queued")
    parser.add_argument("--tuners", type=int, default=200)
    parser.add_argument("--submitters", type=int, default=4)
    parser.add_argument("--seconds", type=float, help="a job's length; drain: 0, steady: 60")
    parser.add_argument("--limit", type=float, help="seconds to measure for; steady: 180, else 480")
    parser.add_argument("--out", type=Path, default=record.RESULTS)
    parser.add_argument("--long-jobs", type=int, default=4)
    parser.add_argument("--long-steps", type=int, default=150, help="of the longer jobs")
    args = parser.parse_args()
    part = {"submit": submit, "drain": drain, "steady": steady, "decide": decide, "real": real}[args.part]
    args.jobs = args.jobs or (24 if args.part == "real" else 10_000)
    args.seconds = args.seconds if args.seconds is not None else {"steady": 60.0}.get(args.part, 0.0)
    args.limit = args.limit or {"steady": 180.0}.get(args.part, 480.0)
    shape = {} if args.part in ("real", "decide") else {"tuners": args.tuners, "job_seconds": args.seconds}
    keep(args.part, {**shape, **part(args)}, args)


if __name__ == "__main__":
    main()
