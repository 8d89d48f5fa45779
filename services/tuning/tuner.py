"""The tuner: a Ray Train run that loads a base once, then tunes job after job until there is none left for a while."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

import ray
import torch.distributed as dist
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from services.compute import load_base
from services.settings import Settings
from services.tuning.lease import NAMESPACE, SCHEDULER, Lease
from tav_client.schemas import Failure, FailureCode

log = logging.getLogger(__name__)


@ray.remote(num_cpus=0)
class TunerSupervisor:
    """Calls `TorchTrainer.fit()`, which blocks, in a process on a stable node, and can be ended with what it started."""

    def run(self, settings: Settings, tuner_id: str, base: str) -> None:
        """Until the tuner has no more work. Lost workers are replaced; the scheduler decides about their job."""
        cuda = settings.device == "cuda" or (settings.device == "auto" and ray.cluster_resources().get("GPU", 0) > 0)
        TorchTrainer(
            tuner_loop,
            train_loop_config={"settings": settings, "tuner_id": tuner_id, "base": base},
            torch_config=TorchConfig(backend="nccl" if cuda else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=settings.tuner_workers,
                use_gpu=cuda,
                resources_per_worker={"CPU": settings.tuner_cpus} | ({"GPU": 1} if cuda else {}),
            ),
            run_config=RunConfig(
                name=tuner_id,  # unique: Ray Train resumes a run whose name it knows
                storage_path=str(settings.work_dir / "ray-train"),
                failure_config=FailureConfig(max_failures=10),
                worker_runtime_env={"env_vars": {} if cuda else {"DS_ACCELERATOR": "cpu"}},
            ),
        ).fit()


def tuner_loop(config: dict[str, Any]) -> None:
    """Each rank's life. Rank 0 speaks with the scheduler; the others follow it."""
    from services.tuning.engine import DeepSpeedEngine
    from services.tuning.work import Attempt
    from tav import TavError, Tuner

    settings: Settings = config["settings"]
    rank = dist.get_rank()
    scheduler = ray.get_actor(SCHEDULER, NAMESPACE)
    try:
        base = load_base(config["base"], settings)
    except TavError as error:
        if rank == 0:
            ray.get(scheduler.refuse.remote(config["tuner_id"], Failure(code=FailureCode(error.code), message=str(error))))
        return
    tuner = Tuner(base, partial(DeepSpeedEngine, zero_stage=settings.zero_stage), base.tune_config(), rank)
    while lease := _same_on_all_ranks(ray.get(scheduler.lease.remote(config["tuner_id"])) if rank == 0 else None):
        Attempt(lease, tuner, settings, scheduler).run()


def _same_on_all_ranks(lease: Lease | None) -> Lease | None:
    box = [lease]
    if dist.get_world_size() > 1:
        dist.broadcast_object_list(box)
    return box[0]
