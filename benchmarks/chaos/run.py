"""One run: the site, the storm, the judgement."""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.chaos.faults import Durations, Faults
from benchmarks.chaos.judgement import judged
from benchmarks.chaos.mounts import may_mount
from benchmarks.chaos.site import Site
from benchmarks.chaos.storm import SETTINGS, Chaos, Clients, schedule
from tav import Video
from tests.tav.conftest import write_random_base


def moving_square(path: Path) -> Path:
    """A clip."""
    frames = np.full((6, 16, 16, 3), 60, np.uint8)
    for i, frame in enumerate(frames):
        frame[6:11, 2 * i : 2 * i + 5] = (220, 40, 40)
    path.write_bytes(Video(frames, 8).encode())
    return path


def small_base(folder: Path) -> Path:
    """Random weights in SD1.4's layout, and few steps of inversion and sampling."""
    base = write_random_base(folder, seed=3)
    few = {"num_inference_steps": 10}
    (base / "tav.json").write_text(json.dumps({"invert": few, "sample": few}))
    return base


def run(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The stack, the storm, the judgement."""
    rng = random.Random(args.seed)
    site = Site(folder, small_base(folder / "base"), args.nodes, SETTINGS)
    kinds = [kind for kind in args.kinds.split(",") if kind != "disk" or may_mount()]
    steps, wanted = schedule(rng, kinds, args.rounds, args.jobs)
    durations = Durations(s3=5.0, disk=15.0) if args.short else Durations()
    clients = Clients(lambda: site.stack.client_url, clip := moving_square(folder / "clip.mp4"))
    chaos = Chaos(site, Faults(site, rng, durations), clients)
    try:
        site.up()
        chaos.say("the service is up")
        reference = chaos.reference(clip, {asked.kind for asked in wanted})
        happened = chaos.storm(steps, wanted)
        ended = chaos.settle(wanted)
        chaos.say("all jobs have ended" if all(job.status.final for job in ended) else "not all jobs have ended")
        figures = judged(chaos, wanted, ended, reference)
        figures["works_afterwards"] = chaos.aftermath(clip, reference)
        figures["left_behind"] = chaos.left_behind()
    finally:
        site.close()
    return {
        "seed": args.seed,
        "seconds": round(time.monotonic() - chaos.began),
        "durations": asdict(durations),
        "faults_injected": dict(sorted(Counter(entry["fault"] for entry in happened).items())),
        "faults_that_met_running_work": sum(entry["met"] for entry in happened),
        "faults_not_possible_here": [] if may_mount() else ["disk: mounting a small disk needs unshare(1)"],
        **figures,
        "calls_repeated_by_clients": clients.repeated,
        "schedule": happened,
    }
