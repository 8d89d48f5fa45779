"""The DeepSpeed engine against plain AdamW, in processes of their own (it wants torch.distributed)."""

import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from safetensors.torch import load_file, save_file

from services.platform.ports import any_free
from tav import Base, Clip, Progress, TuneConfig, Tuner
from tests.tav.conftest import write_random_base

pytestmark = pytest.mark.slow

CONFIG = TuneConfig(steps=6, learning_rate=1e-3)


def a_clip() -> Clip:
    frames = np.full((3, 16, 16, 3), 60, np.uint8)
    for i, frame in enumerate(frames):
        frame[6:11, 3 * i : 3 * i + 5] = (220, 40, 40)
    return Clip(frames, 8.0, "a red square")


def rank_main(rank: int, world: int, port: int, base_folder: str, out: str, zero_stage: int) -> None:
    """Tune twice on a warm tuner, resume from step 3 on it and on a fresh one; keep the four deltas."""
    os.environ |= {"DS_ACCELERATOR": "cpu", "RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": "0"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    from services.tuning.engine import DeepSpeedEngine

    base, engine = Base.load(base_folder), partial(DeepSpeedEngine, zero_stage=zero_stage)
    tuner = Tuner(base, engine, rank=rank)
    kept: dict[int, Any] = {}

    def keep(progress: Progress) -> None:
        kept[progress.step] = tuner.state()

    first = tuner.tune(a_clip(), CONFIG, on_step=keep)
    tuner.tune(a_clip(), CONFIG.model_copy(update={"seed": 5, "learning_rate": 3e-3}))
    warm = tuner.tune(a_clip(), CONFIG)
    resumed = tuner.tune(a_clip(), CONFIG, resume=kept[3])
    elsewhere = Tuner(base, engine, rank=rank).tune(a_clip(), CONFIG, resume=kept[3])
    for name, delta in (("first", first), ("warm", warm), ("resumed", resumed), ("elsewhere", elsewhere)):
        save_file(delta.tensors, Path(out) / f"{name}-{rank}.safetensors")
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize(("world", "zero_stage"), [(1, 1), (1, 2), (2, 1), (2, 2)])
def test_deepspeed_agrees_with_adamw_stays_warm_and_resumes_exactly(world: int, zero_stage: int, tmp_path: Path) -> None:
    folder = write_random_base(tmp_path / "base", seed=0)
    mp.start_processes(
        rank_main, (world, any_free("127.0.0.1"), str(folder), str(tmp_path), zero_stage), nprocs=world, start_method="spawn"
    )
    made = {path.stem: load_file(path) for path in tmp_path.glob("*.safetensors")}
    first = made["first-0"]
    for name, tensors in made.items():  # warm = fresh, resumed = left alone, rank = rank: bit for bit
        assert all(torch.equal(tensors[n], t) for n, t in first.items()), name
    alone = Tuner(Base.load(str(folder))).tune(a_clip(), CONFIG).tensors
    largest = max((alone[n].float() - t.float()).abs().max().item() for n, t in first.items())
    if world == 1:
        assert largest < 1e-3  # of updates of about 6e-3; the stored fp16 itself has steps of 2e-4
    else:
        assert largest > 1e-3  # the ranks drew different noise
