"""Starts and ends tuners, out of the scheduler's process, which needs no torch: Ray Train comes with `tuner`, elsewhere."""

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
    """Tuners as Ray Train runs; used by the scheduler alone, which they end with."""

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
        while True:  # also what the tuners of an earlier scheduler have left
            await asyncio.sleep(_TIDY_SECONDS)
            try:
                if removed := await asyncio.to_thread(remove_orphans):
                    log.info("removed the placement groups of %d tuners that have ended", removed)
            except Exception:  # without this loop nodes would be kept for nobody
                log.exception("cannot give back what ended tuners have left, trying again")


@ray.remote(num_cpus=0, resources=HEAD)
class TunerSupervisor:
    """Calls `TorchTrainer.fit()`, which blocks, in a process on a stable node, and can be ended with what it started."""

    def run(self, settings: Settings, tuner_id: str, kind: JobClass, runs: Path) -> None:
        """Until the tuner has no more work."""
        with collector_paused():
            from services.tuning.tuner.run import run

        run(settings, tuner_id, kind, runs)
