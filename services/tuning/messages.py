"""What scheduler and tuner say to each other."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from tav_client.schemas import Estimate, Failure, JobPhase, TuningJob


@dataclass(frozen=True)
class JobClass:
    """What the jobs of a tuner have in common."""

    base: str
    gpus: int = 1
    gpu_type: str | None = None


@dataclass(frozen=True)
class Lease:
    """One attempt at one job."""

    job: TuningJob
    attempt: int
    beat_seconds: float = 0.5
    """How often to beat; the run gets metrics and log after every tenth beat."""


@dataclass(frozen=True)
class Beat:
    """A running job's progress."""

    phase: JobPhase
    step: int
    total_steps: int
    progress: float
    """Of the whole job, 0–1."""
    loss: float | None
    eta_seconds: float | None
    caption: str | None = None
    """Once a clip without one has been captioned."""
    estimate: Estimate | None = None
    """Of the memory setting that it works in."""
    unread: dict[str, str] | None = None
    """What of the job's texts the base does not read, where the tuner has looked."""


class Verdict(StrEnum):
    """The scheduler's answer to a beat."""

    go_on = "go_on"
    cancel = "cancel"
    """Somebody cancelled the job: stop and report `cancelled`."""
    lost = "lost"
    """The attempt is no longer this tuner's: stop and report nothing."""


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended: exactly one of a version, a failure, handed back, or (none of these) cancelled."""

    version: int | None = None
    failure: Failure | None = None
    traceback: str | None = None
    retry: bool = False
    """The failure may pass (storage away, a full disk): try again, after a pause, while attempts are left."""
    handed_back: bool = False
    """The tuner's node is about to be taken away: go on elsewhere, at once, from the checkpoint; this attempt is excused."""

    @property
    def last(self) -> bool:
        """No other attempt follows."""
        return not (self.retry or self.handed_back)
