"""A warm tuner over many jobs and memory settings, in a process of its own (it wants torch.distributed)."""

import gc
import json
import weakref
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import torch.multiprocessing as mp

from services.platform.ports import any_free
from services.settings import Settings
from tav import InvertConfig, TuneConfig, invert
from tav.compiling import is_inside_compiled
from tav.memory import MemorySetting, ladder
from tests.tav.conftest import write_random_base
from tests.tuning.test_deepspeed_engine import HOST, a_clip, enter_group

pytestmark = pytest.mark.slow

DEFAULT = MemorySetting()
LEAN = MemorySetting(gradient_checkpointing=True, **HOST)
CONFIG = TuneConfig(steps=1, learning_rate=1e-3)
MIB = 2**20


def held() -> dict[str, int]:
    """Bytes of all tensors alive, and of the whole process."""
    gc.collect()
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in gc.get_objects() if torch.is_tensor(t)}
    return {"tensors": sum(storages.values()), "process": psutil.Process().memory_info().rss}


def life(rank: int, port: int, base: str, out: str) -> None:
    enter_group(rank, 1, port)
    from services.tuning.tuner.warm_tuner import WarmTuner

    warm = WarmTuner(base, Settings(device="cpu", compute_threads=1), rank)
    seen: dict[str, Any] = {}
    deltas = {}
    for name, setting in {"default": DEFAULT, "lean": LEAN}.items():
        for job in range(50):
            delta = warm.tuner(setting).tune(a_clip(), CONFIG.model_copy(update={"seed": job}))
            if job == 9:
                seen[name] = [held()]
        seen[name].append(held())
        deltas[name] = delta
    seen["left"] = []
    for turn in range(4):
        tuner = warm.tuner(LEAN if turn % 2 else DEFAULT)
        delta = tuner.tune(a_clip(), CONFIG.model_copy(update={"seed": 49}))
        if turn == 2:
            deltas["default after lean"] = delta
        parts = [weakref.ref(part) for part in (*tuner.net.modules(), *tuner.net.parameters())]
        del tuner
        warm.discard()
        gc.collect()
        if turn % 2:
            seen["left"].append(sum(part() is not None for part in parts))
    seen["same"] = all(torch.equal(deltas["default after lean"].tensors[n], t) for n, t in deltas["default"].tensors.items())
    latents = []
    for setting in (DEFAULT, LEAN):
        warm.tuner(setting)
        with warm.sampling_net() as net:
            latents.append(invert(warm.base, a_clip(), deltas["lean"], InvertConfig(num_inference_steps=2), net=net).tensor)
    seen["rest"] = {}
    for name, setting in {"default": DEFAULT, "lean": LEAN}.items():
        tuner = warm.tuner(setting)
        once = tuner.tune(a_clip(), CONFIG)
        tuning = held()["tensors"]
        with warm.sampling_net():
            pass
        moments = 8 * sum(tensor.numel() for tensor in once.tensors.values())
        again = tuner.tune(a_clip(), CONFIG)
        same = all(torch.equal(again.tensors[key], tensor) for key, tensor in once.tensors.items())
        tuner.state()
        del again
        warm.rest()
        seen["rest"][name] = {"given back": tuning - held()["tensors"], "moments": moments, "same": same}
    seen["latents apart"] = (latents[0] - latents[1]).abs().max().item()
    warm = WarmTuner(base, Settings(device="cpu", compute_threads=1, compile=True), rank)
    seen["compiled"] = [is_inside_compiled(warm.tuner(setting).net, "mid_block.resnets.0.conv1") for setting in (DEFAULT, LEAN)]
    Path(out).write_text(json.dumps(seen))
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("warm")
    base = write_random_base(folder / "base", seed=0)
    mp.start_processes(life, (any_free("127.0.0.1"), str(base), str(folder / "seen.json")), nprocs=1, start_method="spawn")
    return json.loads((folder / "seen.json").read_text())


@pytest.mark.parametrize("name", ["default", "lean"])
def test_memory_is_flat_over_fifty_jobs(name: str, seen: dict[str, Any]) -> None:
    tenth, fiftieth = seen[name]
    assert fiftieth["tensors"] <= tenth["tensors"] + 64 * 1024, seen[name]
    assert fiftieth["process"] <= tenth["process"] + 16 * MIB, seen[name]


@pytest.mark.parametrize("name", ["default", "lean"])
def test_a_tuner_that_rests_holds_no_moments_and_tunes_as_before(name: str, seen: dict[str, Any]) -> None:
    rest = seen["rest"][name]
    assert rest["same"]
    assert rest["given back"] >= 0.99 * rest["moments"], rest


def test_of_a_stage_3_network_nothing_is_left_behind_when_the_setting_changes(seen: dict[str, Any]) -> None:
    assert seen["left"] == [0, 0]


def test_a_setting_used_in_between_changes_no_bit_of_another_s_result(seen: dict[str, Any]) -> None:
    assert seen["same"]


def test_inversion_is_the_same_whatever_setting_the_tuner_was_left_in(seen: dict[str, Any]) -> None:
    assert seen["latents apart"] < 1e-3  # the tuner's own network lies elsewhere in memory than a new one


def test_blocks_are_compiled_where_the_service_is_set_so_but_not_under_stage_3(seen: dict[str, Any]) -> None:
    assert seen["compiled"] == [True, False]


def test_the_ladder_grows_leaner_and_keeps_its_precision() -> None:
    rungs = ladder("bf16")
    assert rungs[0] == MemorySetting(precision="bf16")
    assert rungs[-1] == MemorySetting(precision="bf16", gradient_checkpointing=True, **HOST)
    assert {rung.precision for rung in rungs} == {"bf16"}
    assert all(not rung.gradient_checkpointing for rung in ladder("bf16", gradient_checkpointing=False))
