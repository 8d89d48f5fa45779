"""The promise that no job is lost, while one part after the other fails; `python -m benchmarks.chaos` is the long form."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
FAULTS = ("worker", "tuner", "scheduler", "mlflow", "s3", "disk", "preemption")
"""The head's stop and start has a test of its own."""
JOBS = 7


def test_no_job_is_lost_or_registered_twice_and_none_ends_in_another_delta_whatever_fails(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.chaos", "--seed", "1", "--jobs", str(JOBS), "--rounds", "1", "--nodes", "1"]
    command += ["--short", "--kinds", ",".join(FAULTS), "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=1200)
    assert (tmp_path / "chaos.json").exists(), f"{done.stdout}\n{done.stderr}"
    figures = json.loads((tmp_path / "chaos.json").read_text())
    assert figures["does_not_hold"] == [], done.stdout
    assert (figures["jobs"]["accepted"], figures["jobs"]["lost"], figures["duplicates_registered"]) == (JOBS, 0, 0)
    assert figures["deltas_compared"] == figures["jobs"]["succeeded"] > 0
    possible = set(FAULTS) - ({"disk"} if figures["faults_not_possible_here"] else set())
    assert set(figures["faults_injected"]) == possible
