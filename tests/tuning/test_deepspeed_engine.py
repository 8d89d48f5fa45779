"""The DeepSpeed engine against plain AdamW, in processes of their own (it wants torch.distributed)."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from safetensors.torch import load_file, save_file
from torch import Tensor

from services.platform.ports import any_free
from tav import Base, Clip, Progress, TuneConfig, Tuner, compile_blocks
from tav.errors import NanLoss
from tav.memory import MemorySetting
from tav.precision import DTYPES
from tav.tuning import UPDATES, Draw, draw_step
from tests.tav.conftest import write_random_base

pytestmark = pytest.mark.slow

CONFIG = TuneConfig(steps=4, learning_rate=1e-3)
HOST = {"zero_stage": 3, "offload_optimizer": True, "offload_params": True}
ALONE = {
    "zero-1": MemorySetting(precision="fp32"),
    "zero-1-checkpointing": MemorySetting(precision="fp32", gradient_checkpointing=True),
    "zero-1-compiled": MemorySetting(precision="fp32"),
    "zero-1-optimizer-offloaded": MemorySetting(precision="fp32", offload_optimizer=True),
    "zero-2-optimizer-offloaded": MemorySetting(precision="fp32", zero_stage=2, offload_optimizer=True),
    "zero-3": MemorySetting(precision="fp32", zero_stage=3),
    "zero-3-all-offloaded-checkpointing": MemorySetting(precision="fp32", gradient_checkpointing=True, **HOST),
    "zero-1-bf16": MemorySetting(precision="bf16"),
    "zero-3-all-offloaded-bf16": MemorySetting(precision="bf16", **HOST),
    "zero-1-fp16": MemorySetting(precision="fp16"),
    "zero-3-fp16": MemorySetting(precision="fp16", zero_stage=3),
}
TOGETHER = {
    "zero-1": MemorySetting(precision="fp32"),
    "zero-2": MemorySetting(precision="fp32", zero_stage=2),
    "zero-3": MemorySetting(precision="fp32", zero_stage=3),
    "zero-3-all-offloaded": MemorySetting(precision="fp32", **HOST),
}
TOLERANCE = {"fp32": 1e-3, "bf16": 0.25, "fp16": 0.1}
"""Of the distance of two ends, as a part of the way from the start: ‖a − b‖ / ‖b − start‖."""

Deltas = dict[str, dict[str, Tensor]]


def a_clip() -> Clip:
    frames = np.full((3, 16, 16, 3), 60, np.uint8)
    for i, frame in enumerate(frames):
        frame[6:11, 3 * i : 3 * i + 5] = (220, 40, 40)
    return Clip(frames, 8.0, "a red square")


def enter_group(rank: int, world: int, port: int) -> None:
    os.environ |= {"DS_ACCELERATOR": "cpu", "RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": "0"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    from deepspeed.accelerator import get_accelerator

    from services.tuning.tuner.prebuild import load_communication

    load_communication()  # in turn with tuners of other tests, as they do

    # torch computes in fp16 on any CPU, if slowly; DeepSpeed refuses it where it would be slow.
    get_accelerator().is_fp16_supported = lambda: True


def rank_main(rank: int, world: int, port: int, base_folder: str, out: str, settings: dict[str, MemorySetting]) -> None:
    """In each setting: tune twice on a warm tuner, then resume on it from step 2; keep the three deltas and the masters.
    In fp16 also with gradients that overflow at first, so that there are fewer updates than steps.

    Gradients beyond the precision's range end the work with what to try.
    """
    enter_group(rank, world, port)
    from services.tuning.tuner.deepspeed_engine import DeepSpeedEngine

    for name, setting in settings.items():
        base = Base.load(base_folder, dtype=DTYPES[setting.precision or "fp32"])
        tuner = Tuner(base, partial(DeepSpeedEngine, setting=setting), rank=rank)
        if name.endswith("compiled"):
            compile_blocks(tuner.net, backend="aot_eager")
        config = CONFIG.model_copy(update={"gradient_checkpointing": setting.gradient_checkpointing})
        states: dict[int, Any] = {}

        def keep(progress: Progress, tuner: Tuner = tuner, states: dict[int, Any] = states) -> None:
            states[progress.step] = tuner.state()

        first = tuner.tune(a_clip(), config, on_step=keep)
        tuner.tune(a_clip(), config.model_copy(update={"seed": 5, "learning_rate": 3e-3, "steps": 1}))
        warm = tuner.tune(a_clip(), config)
        resumed = tuner.tune(a_clip(), config, resume=states[2])
        for label, delta in (("first", first), ("warm", warm), ("resumed", resumed)):
            save_file(delta.tensors, Path(out) / f"{name}.{label}.{rank}.safetensors")
        save_file(states[CONFIG.steps].tuned, Path(out) / f"{name}.masters.{rank}.safetensors")
        if setting.precision == "fp16":
            steep = config.model_copy(update={"steps": 8})
            tuner._loss = partial(_times, tuner._loss, 3000.0)  # type: ignore[method-assign]
            whole = tuner.tune(a_clip(), steep, on_step=keep)
            assert states[5].optimizer[UPDATES] < 5
            resumed = tuner.tune(a_clip(), steep, resume=states[5])
            assert all(torch.equal(resumed.tensors[key], tensor) for key, tensor in whole.tensors.items())
            del tuner._loss
        with pytest.raises(NanLoss, match="use bf16 or fp32" if setting.precision == "fp16" else "lower the learning rate"):
            _too_steep(tuner).tune(a_clip(), config.model_copy(update={"steps": 30}))
        tuner.engine.close()
    torch.distributed.destroy_process_group()


def _times(loss: Callable[..., Tensor], factor: float, *draws: Any) -> Tensor:
    return loss(*draws) * factor


def _too_steep(tuner: Tuner) -> Tuner:
    """The same tuner, its loss finite, its gradients infinite."""
    loss = tuner._loss

    def steep(*draws: Any) -> Tensor:
        value = loss(*draws)
        return value + 1e30 * (1e30 * (value - value.detach()))

    tuner._loss = steep  # type: ignore[method-assign]
    return tuner


def run_all(world: int, settings: dict[str, MemorySetting], folder: Path) -> Deltas:
    base = write_random_base(folder / "base", seed=0)
    (folder / "deltas").mkdir()
    arguments = (world, any_free("127.0.0.1"), str(base), str(folder / "deltas"), settings)
    mp.start_processes(rank_main, arguments, nprocs=world, start_method="spawn")
    return {path.stem: load_file(path) for path in (folder / "deltas").glob("*.safetensors")}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Deltas]:
    folder = tmp_path_factory.mktemp("alone")
    return folder / "base", run_all(1, ALONE, folder)


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Deltas]:
    folder = tmp_path_factory.mktemp("together")
    return folder / "base", run_all(2, TOGETHER, folder)


def masters(tuner: Tuner, config: TuneConfig = CONFIG) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Where plain AdamW starts and ends."""
    states: list[dict[str, Tensor]] = []
    tuner.tune(a_clip(), config.model_copy(update={"learning_rate": 1e-30, "steps": 1}))
    start = tuner.state().tuned
    tuner.tune(a_clip(), config, on_step=lambda _: states.append(tuner.state().tuned))
    return start, states[-1]


def distance(delta: dict[str, Tensor], start: dict[str, Tensor], end: dict[str, Tensor]) -> float:
    def flat(tensors: dict[str, Tensor]) -> Tensor:
        return torch.cat([tensors[name].flatten() for name in sorted(end)])

    return ((flat(delta) - flat(end)).norm() / (flat(end) - flat(start)).norm()).item()


@pytest.mark.parametrize("name", ALONE)
def test_every_setting_agrees_with_plain_adamw(name: str, alone: tuple[Path, Deltas]) -> None:
    base, deltas = alone
    precision = ALONE[name].precision or "fp32"
    start, end = masters(Tuner(Base.load(str(base), dtype=DTYPES[precision])))
    assert distance(deltas[f"{name}.masters.0"], start, end) < TOLERANCE[precision]


@pytest.mark.parametrize("name", ALONE)
def test_a_warm_tuner_and_a_resumed_job_repeat_every_bit(name: str, alone: tuple[Path, Deltas]) -> None:
    _, deltas = alone
    first = deltas[f"{name}.first.0"]
    for label in ("warm", "resumed"):
        assert all(torch.equal(deltas[f"{name}.{label}.0"][key], tensor) for key, tensor in first.items()), label


@pytest.mark.parametrize("name", TOGETHER)
def test_two_ranks_agree_repeat_every_bit_and_average_their_gradients(name: str, together: tuple[Path, Deltas]) -> None:
    base, deltas = together
    first = deltas[f"{name}.first.0"]
    for label in ("warm.0", "resumed.0", "first.1", "warm.1", "resumed.1"):
        assert all(torch.equal(deltas[f"{name}.{label}"][key], tensor) for key, tensor in first.items()), label
    start, averaged = masters(_BothRanks(Base.load(str(base))))
    assert distance(deltas[f"{name}.masters.0"], start, averaged) < TOLERANCE["fp32"]
    _, single = masters(Tuner(Base.load(str(base))))
    assert distance(deltas[f"{name}.masters.0"], start, single) > 0.1  # the second rank drew noise of its own


class _BothRanks(Tuner):
    """Plain AdamW on the mean of the losses that ranks 0 and 1 see."""

    def _loss(self, mean: Tensor, std: Tensor, text: Tensor, draw: Draw) -> Tensor:
        draws = [draw, draw_step(mean, 1000, CONFIG.seed, self._step, rank=1)]
        return sum((super(_BothRanks, self)._loss(mean, std, text, each) for each in draws), torch.zeros(())) / 2
