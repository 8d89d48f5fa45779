"""Tuning in fp16, where gradients are scaled: the scale is a job's own, and belongs to what a resumed job goes on from."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tav import Base, Clip, Delta, TuneConfig, Tuner
from tav.errors import NanLoss
from tav.tuning import UPDATES, TuneState

CONFIG = TuneConfig(steps=8, learning_rate=1e-3)
STEEP = 1000.0  # gradients overflow until the scale has been halved some times


class Stopped(Exception):
    pass


@pytest.fixture(scope="module")
def half(base_folder: Path) -> Base:
    return Base.load(str(base_folder), dtype=torch.float16)


def times(loss: Callable[..., Tensor], factor: float, *draws: Any) -> Tensor:
    return loss(*draws) * factor


def tuner_of(base: Base, factor: float = STEEP) -> Tuner:
    """Its gradients are larger, as a larger network's are."""
    tuner = Tuner(base)
    tuner._loss = partial(times, tuner._loss, factor)  # type: ignore[method-assign]
    return tuner


def equal(one: Delta, other: Delta) -> bool:
    return all(torch.equal(tensor, other.tensors[name]) for name, tensor in one.tensors.items())


def states(tuner: Tuner, clip: Clip) -> tuple[Delta, dict[int, TuneState]]:
    kept: dict[int, TuneState] = {}
    return tuner.tune(clip, CONFIG, on_step=lambda p: kept.update({p.step: tuner.state()})), kept


def test_the_same_job_again_on_a_warm_tuner_gives_the_same_delta(half: Base, clip: Clip) -> None:
    tuner = tuner_of(half)
    first, kept = states(tuner, clip)
    assert kept[1].optimizer[UPDATES] == 0 and 0 < kept[8].optimizer[UPDATES] < 8  # it did overflow, from the first step on
    assert equal(tuner.tune(clip, CONFIG), first)


@pytest.mark.parametrize("step", [1, 3, 7])
def test_a_job_that_is_resumed_elsewhere_ends_in_the_same_delta(half: Base, clip: Clip, step: int) -> None:
    whole, kept = states(tuner_of(half), clip)
    resumed, later = [], tuner_of(half)
    again = later.tune(clip, CONFIG, resume=kept[step], on_step=lambda p: resumed.append((p.step, later.state())))
    assert [number for number, _ in resumed] == list(range(step + 1, 9))
    assert equal(again, whole)
    for number, state in resumed:
        assert all(torch.equal(tensor, kept[number].optimizer[name]) for name, tensor in state.optimizer.items())


@pytest.mark.slow
def test_a_job_whose_gradients_never_fit_leaves_the_tuner_to_the_next(half: Base, clip: Clip) -> None:
    expected = Tuner(half).tune(clip, CONFIG)
    tuner = tuner_of(half, 1e30)
    with pytest.raises(NanLoss, match="use bf16 or fp32"):
        tuner.tune(clip, CONFIG.model_copy(update={"steps": 60}))
    del tuner._loss
    assert equal(tuner.tune(clip, CONFIG), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_job_that_ends_in_the_middle_of_a_step_leaves_no_gradients_to_the_next(
    base_folder: Path, clip: Clip, dtype: torch.dtype
) -> None:
    base = Base.load(str(base_folder), dtype=dtype)
    tuner = Tuner(base)
    expected = tuner.tune(clip, CONFIG)
    parameters = [p for p in tuner.net.parameters() if p.requires_grad]

    def out_of_memory(_: Tensor) -> None:
        if all(p.grad is None for p in parameters[-3:]):
            return
        raise Stopped

    hooks = [p.register_post_accumulate_grad_hook(out_of_memory) for p in parameters[:3]]
    with pytest.raises(Stopped):
        tuner.tune(clip, CONFIG)
    for hook in hooks:
        hook.remove()
    assert any(p.grad is not None for p in parameters)
    assert equal(tuner.tune(clip, CONFIG), expected)
