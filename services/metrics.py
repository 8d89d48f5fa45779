"""Every metric of the services, defined once. Ray's agent on each node exports them to Prometheus as `ray_tav_…`.

A counter's name gets `_total` there, a histogram's `_bucket`, `_sum` and `_count`; Ray adds labels for node, session and
process. A `Level` is exported as long as its process lives. Where no Ray runs, nothing is recorded, and nothing fails.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import ClassVar

from ray.util.metrics import Counter, Gauge, Histogram

_REFRESH_SECONDS = 1.0


class Level(Gauge):
    """A gauge that keeps its value. Ray drops one that was not set for two of its reports, so a thread sets it again."""

    _last: ClassVar[dict[tuple[Level, tuple[tuple[str, str], ...]], float]] = {}
    _lock: ClassVar = threading.Lock()
    _thread: ClassVar[threading.Thread | None] = None

    def set(self, value: float | None, tags: dict[str, str] | None = None) -> None:
        """Set the value from now on."""
        assert value is not None
        super().set(value, tags)
        with self._lock:
            self._last[self, tuple((tags or {}).items())] = value
            if Level._thread is None:
                Level._thread = threading.Thread(target=self._refresh, name="metrics", daemon=True)
                Level._thread.start()

    @classmethod
    def _refresh(cls) -> None:
        while True:
            time.sleep(_REFRESH_SECONDS)
            with cls._lock:
                last = list(cls._last.items())
            for (level, tags), value in last:
                Gauge.set(level, value, dict(tags))


_SHORT = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0]
"""Seconds: steps, swaps."""
_LONG = [1.0, 3.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0, 14_400.0]
"""Seconds: videos, jobs, waiting."""

# The scheduler's.
ROUNDS = Counter("tav_scheduler_rounds", "Rounds of the scheduler's loop, about one a second while it works.")
JOBS = Level("tav_jobs", "Open tuning jobs by status.", ("status",))
QUEUE_AGE = Level("tav_queue_age_seconds", "How long the tuning job that has waited longest has waited; 0: none waits.")
QUEUE_SECONDS = Histogram("tav_queue_seconds", "How long a tuning job waited before a tuner began it.", _LONG)
JOBS_ENDED = Counter("tav_jobs_ended", "Tuning jobs that have ended, by status and failure code.", ("status", "code"))
JOB_SECONDS = Histogram("tav_job_seconds", "From a tuning job's first start to its end, by status.", _LONG, ("status",))
ATTEMPTS_LOST = Counter(
    "tav_attempts_lost", "Attempts at tuning jobs that ended without a result and are made again.", ("code",)
)
TUNERS = Level("tav_tuners", "Tuners by state: starting (also: waiting for a node), idle, busy.", ("state",))

# A tuner's and a sampler's.
STEP_SECONDS = Histogram("tav_step_seconds", "Time of one step, by phase.", _SHORT, ("phase",))
GPU_MEMORY = Level(
    "tav_gpu_memory_bytes",
    "Of a tuner's or sampler's GPU: allocated, reserved, peak of what was allocated, total.",
    ("part", "kind"),
)

# A sampler's.
SAMPLERS = Level("tav_samplers", "Samplers by base and state: idle, busy.", ("base", "state"))
DELTAS = Counter("tav_deltas", "Deltas asked for, by the tier where they were found: device, host, or store (S3).", ("tier",))
SWAP_SECONDS = Histogram(
    "tav_swap_seconds", "From asking for a delta until a sampler has it on its device, by tier.", _SHORT, ("tier",)
)
SAMPLING_SECONDS = Histogram("tav_sampling_seconds", "Sampling alone of one video, by base.", _LONG, ("base",))

# The gateway's.
VIDEOS = Level("tav_videos", "Open videos by status.", ("status",))
VIDEOS_ENDED = Counter("tav_videos_ended", "Videos that have ended, by status and failure code.", ("status", "code"))
VIDEO_SECONDS = Histogram("tav_video_seconds", "From a video's acceptance to its completion.", _LONG)
PROBLEMS = Counter("tav_problems", "Requests answered by an error, by HTTP status and code.", ("status", "code"))


def defined() -> Mapping[str, str]:
    """Return every metric's description by its name in Prometheus (a histogram by its stem)."""
    descriptions = {}
    for metric in globals().values():
        if isinstance(metric, Counter | Gauge | Histogram):
            name = f"ray_{metric.info['name']}" + ("_total" if isinstance(metric, Counter) else "")
            descriptions[name] = metric.info["description"]
    return descriptions


def set_states(level: Level, label: str, counts: Mapping[str, int], **others: str) -> None:
    """Set one series for each state, also where the count is 0."""
    for state, count in counts.items():
        level.set(count, {label: state, **others})


def gpu_memory(part: str) -> None:
    """Record the memory of this process's GPU, if it has begun to use one."""
    import torch

    if not (torch.cuda.is_available() and torch.cuda.is_initialized()):
        return
    values = {
        "allocated": torch.cuda.memory_allocated(),
        "reserved": torch.cuda.memory_reserved(),
        "peak": torch.cuda.max_memory_allocated(),
        "total": torch.cuda.mem_get_info()[1],
    }
    set_states(GPU_MEMORY, "kind", values, part=part)
