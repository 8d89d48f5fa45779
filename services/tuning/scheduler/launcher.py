"""Starts and ends tuners from the scheduler's process, which imports no torch: Ray Train runs in a supervisor's process."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import ray

from services.runtime import HEAD, collector_paused
from services.settings import Settings
from services.tuning.messages import JobClass
from services.tuning.scheduler.placement_groups import remove_orphans

log = logging.getLogger(__name__)

_TIDY_SECONDS = 5.0


class TrainLauncher:
    """Starts tuners as Ray Train runs, which end with the scheduler's actor."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._runs = settings.work_dir / "ray-train"
        shutil.rmtree(self._runs, ignore_errors=True)  # of an earlier scheduler's tuners
        self._supervisors: dict[str, Any] = {}
        self._tidying = asyncio.ensure_future(self._tidy())

    def launch(self, tuner_id: str, kind: JobClass) -> Awaitable[None]:
        """See `tuners.Launcher`."""
        supervisor = self._supervisors[tuner_id] = TunerSupervisor.remote()  # type: ignore[attr-defined]
        return self._until_done(tuner_id, supervisor.run.remote(self._settings, tuner_id, kind, self._runs))

    def end(self, tuner_id: str) -> None:
        """See `tuners.Launcher`."""
        if supervisor := self._supervisors.get(tuner_id):
            ray.kill(supervisor)

    async def _until_done(self, tuner_id: str, done: ray.ObjectRef) -> None:
        try:
            await done
        finally:
            del self._supervisors[tuner_id]
            await asyncio.to_thread(shutil.rmtree, self._runs / tuner_id, ignore_errors=True)

    async def _tidy(self) -> None:
        while True:  # also after the tuners of an earlier scheduler
            await asyncio.sleep(_TIDY_SECONDS)
            try:
                if removed := await asyncio.to_thread(remove_orphans):
                    log.info("removed the placement groups of %d tuners that have ended", removed)
            except Exception:  # without this loop nodes would be kept for no one
                log.exception("cannot remove the placement groups of ended tuners, trying again")


@ray.remote(num_cpus=0, resources=HEAD)
class TunerSupervisor:
    """Calls `TorchTrainer.fit()`, which blocks, in a process on the head node. Killed, it takes what it started with it."""

    def run(self, settings: Settings, tuner_id: str, kind: JobClass, runs: Path) -> None:
        """Run a tuner until it has no more work."""
        with collector_paused():
            from services.tuning.tuner.run import run

        run(settings, tuner_id, kind, runs)
