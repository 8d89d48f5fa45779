"""The ranks of a tuner stay together when one of them fails: two real processes over gloo."""

from __future__ import annotations

import json
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from registry.errors import NotFound
from services.platform.ports import any_free
from services.tuning.tuner import ranks as module
from services.tuning.tuner.ranks import Ranks, RanksApart
from tav.errors import NanLoss

pytestmark = pytest.mark.slow


def raised(work: Any) -> list[str]:
    try:
        return ["value", str(work())]
    except Exception as error:  # noqa: BLE001 - the test looks at what it is
        return [type(error).__name__, str(error), type(error.__cause__).__name__]


def rank_main(rank: int, port: int, out: str) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=2)
    ranks, seen = Ranks(), {}

    def fails_on_rank_1(error: Exception) -> int:
        if rank == 1:
            raise error
        return 7

    def step() -> None:
        """One rank's loss is not finite, the other comes to the end of its step."""
        if rank == 1:
            ranks.tell_failure(NanLoss("the loss became nan"), 3)
        assert ranks.any(False, False, False) == (False, False, True)
        ranks.share(None)

    def stuck() -> None:
        """One rank fails in its forward pass, the other waits for its gradients."""
        if rank == 1:
            ranks.tell_failure(ValueError("in the forward pass"), 3)
        dist.all_reduce(torch.zeros(1))

    class Unsendable(Exception):
        pass

    seen["together"] = raised(lambda: ranks.together(lambda: rank))
    seen["known"] = raised(lambda: ranks.together(lambda: fails_on_rank_1(NotFound("job", "x"))))
    seen["unsendable"] = raised(lambda: ranks.together(lambda: fails_on_rank_1(Unsendable("boom"))))
    seen["leader"] = raised(lambda: ranks.from_leader(f"of {rank}"))
    seen["any"] = raised(lambda: ranks.any(rank == 0, rank == 1, False))
    seen["step"] = raised(step)
    Path(out, f"{rank}.json").write_text(json.dumps(seen))
    module._FAILED_TIMEOUT = timedelta(seconds=3)  # not before: the other rank may be slow to come to the end of its step
    seen["stuck"] = raised(stuck)  # on rank 0 it ends when the other process has gone
    if rank == 1:
        Path(out, f"{rank}.json").write_text(json.dumps(seen))
    os._exit(0)  # as Ray Train ends the worker


def test_an_error_on_one_rank_is_raised_on_all_and_one_that_nobody_waits_for_ends_the_tuner(tmp_path: Path) -> None:
    mp.start_processes(rank_main, (any_free("127.0.0.1"), str(tmp_path)), nprocs=2, start_method="spawn")
    zero, one = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert (zero["together"], one["together"]) == (["value", "0"], ["value", "1"])
    assert zero["known"][:2] == one["known"][:2] == ["NotFound", str(NotFound("job", "x"))]
    assert zero["unsendable"][0] == "RuntimeError" and "boom" in zero["unsendable"][1]
    assert zero["leader"] == one["leader"] == ["value", "of 0"]
    assert zero["any"] == one["any"] == ["value", "(True, True, False)"]
    assert zero["step"][:2] == one["step"][:2] == ["NanLoss", "the loss became nan"]
    assert one["stuck"][0] == RanksApart.__name__ and one["stuck"][2] == "ValueError"
