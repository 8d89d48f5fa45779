"""The messages between gateway, scheduler and tuners, besides the jobs themselves."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TypedDict

from tav_client.schemas import Estimate, Failure, JobPhase, TuningJob


@dataclass(frozen=True)
class JobClass:
    """What the jobs of one tuner have in common."""

    base: str
    gpus: int = 1
    gpu_type: str | None = None


@dataclass(frozen=True)
class Lease:
    """One attempt at one job, given to a tuner."""

    job: TuningJob
    attempt: int
    """From 1."""
    beat_seconds: float = 0.5
    """Time between two beats; metrics and log are written to the run with every tenth beat."""


@dataclass(frozen=True)
class Beat:
    """A tuner's report of a running job's progress."""

    phase: JobPhase
    step: int
    total_steps: int
    progress: float
    """Of the whole job, 0–1."""
    loss: float | None
    eta_seconds: float | None
    caption: str | None = None
    """Of a clip that came without one, once the tuner has captioned it."""
    estimate: Estimate | None = None
    """Of the memory setting that the job is tuned in."""
    unread: dict[str, str] | None = None
    """The ends of the job's texts that the base does not read; None before the tuner has looked."""


class Verdict(StrEnum):
    """The scheduler's answer to a beat."""

    go_on = "go_on"
    cancel = "cancel"
    """The job was cancelled or is late: stop, and report that with `finish`."""
    lost = "lost"
    """The attempt is not this tuner's any more: stop, and report nothing."""


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended: exactly one of a version, a failure, handed back, or (none of these) cancelled."""

    version: int | None = None
    failure: Failure | None = None
    traceback: str | None = None
    retry: bool = False
    """The failure may pass (storage away, a full disk): try again, after a pause, while attempts are left."""
    handed_back: bool = False
    """A node of the tuner is about to be taken away: go on elsewhere, at once, from the checkpoint; the attempt is excused."""

    @property
    def last(self) -> bool:
        """No other attempt follows."""
        return not (self.retry or self.handed_back)


class TunerStatus(TypedDict):
    """One tuner, for operators."""

    base: str
    gpus: int
    gpu_type: str | None
    started: bool
    """It has asked for a job."""
    job: str | None


class SchedulerStatus(TypedDict):
    """The scheduler's jobs and tuners, for operators."""

    jobs: dict[str, int]
    """Numbers by status; of ended jobs only the latest are counted."""
    tuners: dict[str, TunerStatus]
    """By the tuner's id."""
