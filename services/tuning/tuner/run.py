"""The tuner: a Ray Train run that loads a base once, then tunes job after job until there has been none for a while."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import ray
import ray.train
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback

from services.runtime import NAMESPACE, SCHEDULER, collector_paused
from services.settings import Settings
from services.tuning.messages import JobClass, Lease
from tav_client.schemas import Failure, FailureCode

_START_TIMEOUT_SECONDS = 600
"""After this long Ray Train asks for a tuner's resources anew; a cluster's new node takes minutes to come."""
_NOTICE_POLL_SECONDS = 1.0
"""Between two looks for preemption notices; clouds give between 30 seconds and two minutes."""


def run(settings: Settings, tuner_id: str, kind: JobClass, runs: Path) -> None:
    """Run a tuner until it has no more work. Blocks. Lost workers are replaced; the scheduler decides about their job.

    Args:
        settings: the service's.
        tuner_id: by which the scheduler knows the tuner.
        kind: what its jobs have in common.
        runs: folder in which Ray Train keeps its own files about the run.
    """
    cuda = settings.device == "cuda" or (
        settings.device == "auto" and (kind.gpu_type is not None or ray.cluster_resources().get("GPU", 0) > 0)
    )
    gpus = settings.tuner_gpus if settings.tuner_gpus is not None else float(cuda)
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", str(_START_TIMEOUT_SECONDS))
    os.environ.setdefault("RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S", str(_NOTICE_POLL_SECONDS))
    _Trainer(
        tuner_loop,
        train_loop_config={"settings": settings, "tuner_id": tuner_id, "base": kind.base},
        torch_config=TorchConfig(backend="nccl" if cuda else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=kind.gpus,
            use_gpu=gpus > 0,
            resources_per_worker={"CPU": settings.tuner_cpus} | ({"GPU": gpus} if gpus else {}),
            accelerator_type=kind.gpu_type,
        ),
        run_config=RunConfig(
            name=tuner_id,  # unique: Ray Train resumes a run whose name it knows
            storage_path=str(runs),
            failure_config=FailureConfig(max_failures=10),
            worker_runtime_env={"env_vars": {} if cuda else {"DS_ACCELERATOR": "cpu"}},
        ),
    ).fit()


class _Trainer(TorchTrainer):
    """A trainer without Ray Train's own cleaner of placement groups.

    That knows a group only once its workers run, and its process stays for ever where a run is killed; see
    `scheduler/placement_groups.py`.
    """

    def _create_default_callbacks(self) -> list[Any]:
        return [each for each in super()._create_default_callbacks() if not isinstance(each, PlacementGroupCleanerCallback)]


def tuner_loop(config: dict[str, Any]) -> None:
    """Work on leased jobs, on each rank. Rank 0 alone calls the scheduler; the others get its lease."""
    with collector_paused():
        from services.tuning.tuner.attempt import Attempt
        from services.tuning.tuner.prebuild import load_communication
        from services.tuning.tuner.ranks import Ranks
        from services.tuning.tuner.warm_tuner import WarmTuner
        from tav import TavError
        from tav.eval.scores import ScoreConfig, Scorer

    settings: Settings = config["settings"]
    if os.environ.get("DS_ACCELERATOR") == "cpu":
        load_communication()
    ranks = Ranks()
    scheduler = ray.get_actor(SCHEDULER, NAMESPACE)
    try:
        warm = ranks.together(lambda: WarmTuner(config["base"], settings, ranks.rank))
        # On the CPU: the GPU's memory is for tuning. Before any job, so that a wrong name fails no job after its tuning.
        scores = ScoreConfig(clip_model=settings.eval_clip_model)
        scorer = ranks.together(lambda: Scorer(scores) if ranks.leader else None)
    except TavError as error:
        if ranks.leader:
            ray.get(scheduler.refuse.remote(config["tuner_id"], Failure(code=FailureCode(error.code), message=str(error))))
        return

    def next_lease() -> Lease | None:
        return ray.get(scheduler.lease.remote(config["tuner_id"])) if ranks.leader else None

    # A tuner whose node is about to be taken away ends here, so that the next one is placed elsewhere.
    while ray.train.get_preemption_info() is None and (lease := ranks.from_leader(next_lease())):
        Attempt(lease, warm, settings, scheduler, ranks, scorer).run()
