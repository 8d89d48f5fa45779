"""What a warm tuner does with its time, read from its jobs' logs and times: `benchmarks.queue real` runs it."""

from __future__ import annotations

import re
import time
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from statistics import mean, median
from typing import Any

from tav_client import TavClient

CLIP = Path(__file__).parent.parent / "examples" / "clips" / "red-ball-grass.mp4"
_LINE = re.compile(r"^(\S+Z) INFO (.*)$", re.MULTILINE)
_STEP = re.compile(r"(tuning|inverting): step (\d+) of (\d+).*?, ([0-9.]+) s$")


def run(client: TavClient, count: int, **params: Any) -> dict[str, Any]:
    """Submit jobs at once, wait for all, and tell where the time went. One more is made: the first may find the tuner cold.

    A job's overhead is all that is neither tuning nor inverting nor saving the result: reading and encoding its clip, and what
    passes between the success of the one before and its own beginning.
    """
    began = time.monotonic()
    jobs = [client.jobs.create(CLIP, caption="a red ball rolling on grass", params=params, seed=i) for i in range(count + 1)]
    submitting = time.monotonic() - began
    for job in jobs:
        job.wait(timeout=1800)
        if job.version is None:
            raise SystemExit(f"job {job.id} ended as {job.status}: {job.error}")
    logs = [_times(client.jobs.logs(job.id)) for job in jobs]
    logs.sort(key=lambda times: times["begins"])
    parts = [_parts(before, times) for before, times in pairwise(logs)]
    whole = [sum(part.values()) for part in parts]
    overhead = [part["turnover"] + part["preparing"] + part["between"] for part in parts]
    return {
        "jobs": count,
        "params": params,
        "submitted_per_second_over_http": round(len(jobs) / submitting, 2),
        "jobs_per_minute": round(60 / mean(whole), 2),
        "seconds_per_job": round(mean(whole), 2),
        "median_seconds": {name: round(median(part[name] for part in parts), 3) for name in parts[0]},
        "overhead_seconds": {"median": round(median(overhead), 2), "max": round(max(overhead), 2)},
        "overhead_percent": round(100 * sum(overhead) / sum(whole), 2),
    }


def _times(log: str) -> dict[str, float]:
    """When what happened, in UNIX seconds."""
    times: dict[str, float] = {}
    for stamp, said in _LINE.findall(log):
        now = datetime.fromisoformat(stamp).timestamp()
        if step := _STEP.search(said):
            phase, number, total, seconds = step.groups()
            if number == "1":
                times[f"{phase} begins"] = now - float(seconds)
            if number == total:
                times[f"{phase} ends"] = now
        elif said.endswith(" begins"):
            times["begins"] = now
        elif said == "registering":
            times["registering"] = now
        elif said == "the job has succeeded":
            times["succeeded"] = now
    return times


def _parts(before: dict[str, float], times: dict[str, float]) -> dict[str, float]:
    return {
        "turnover": times["begins"] - before["succeeded"],
        "preparing": times["tuning begins"] - times["begins"],
        "tuning": times["tuning ends"] - times["tuning begins"],
        "between": times["inverting begins"] - times["tuning ends"],
        "inverting": times["inverting ends"] - times["inverting begins"],
        "saving": times["succeeded"] - times["inverting ends"],
    }
