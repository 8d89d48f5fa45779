"""An attempt at a job in a process that may not have the memory: the kernel refuses it, as a full device would.

The attempt, the tuner and DeepSpeed are real; what the attempt reports to and keeps its files in stays in memory here.
"""

import json
import resource
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import psutil
import pytest
import ray.train
import torch
import torch.multiprocessing as mp

from registry.errors import ObjectMissing
from services.platform.ports import any_free
from services.settings import Settings
from services.tuning.messages import Lease, Outcome, Verdict
from tav import Delta, Video
from tav_client.schemas import ClipInfo, JobMemory, JobParams, JobStatus, TuningJob
from tests.tav.conftest import write_random_base
from tests.tuning.test_deepspeed_engine import enter_group

pytestmark = pytest.mark.slow

FRAMES, SIDE = 16, 64
ROOM = 260 * 2**20
"""With checkpointing the activations take 124 MiB, without it 383."""
PLAIN, CHECKPOINTED = JobMemory(precision="fp32"), JobMemory(precision="fp32", gradient_checkpointing=True)


class Objects(dict[str, bytes]):
    """Files of a job, in memory; the clip is always there."""

    def get_file(self, uri: str, path: Path, sha256: str) -> Path:
        frames = np.random.default_rng(0).integers(0, 256, (FRAMES, SIDE, SIDE, 3), dtype=np.uint8)
        path.write_bytes(Video(frames, 8).encode())
        return path

    def uri(self, key: str) -> str:
        return key

    def put_bytes(self, data: bytes, key: str) -> None:
        self[key] = data

    def get_bytes(self, key: str) -> bytes:
        if key not in self:
            raise ObjectMissing(key)
        return self[key]

    def delete_prefix(self, prefix: str) -> None:
        pass  # the test looks at what was kept


def a_job(name: str, memory: str | JobMemory) -> TuningJob:
    clip = ClipInfo(uri="s3://here/clip", sha256="", width=SIDE, height=SIDE, num_frames=FRAMES, fps=8)
    params = JobParams(num_frames=FRAMES, size=(SIDE, SIDE), steps=1, learning_rate=1e-3, memory=memory)
    fields = {"caption": "a red square", "clip": clip, "base": "here", "model": "m", "params": params}
    return TuningJob(id=name, status=JobStatus.running, created_at=0, **fields)


def attempts(rank: int, port: int, folder: str, out: str) -> None:
    enter_group(rank, 1, port)
    from services.tuning.tuner import attempt as module
    from services.tuning.tuner.ranks import Ranks
    from services.tuning.tuner.warm_tuner import WarmTuner

    decoded: list[str] = []
    opened = av.open

    def watched(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if mode == "r":
            decoded.append(str(file))
        return opened(file, mode, *args, **kwargs)

    av.open = watched
    outcomes: list[Outcome] = []
    deltas: dict[str, Delta] = {}
    objects = Objects()
    reporter = SimpleNamespace(
        plan=lambda *_: None,
        step=lambda _: Verdict.go_on,
        ask=lambda _: Verdict.go_on,
        ask_again=lambda: Verdict.go_on,
        expect=lambda _: None,
        end=outcomes.append,
    )

    def register(attempt: module.Attempt, clip: Any, delta: Delta, latents: Any, samples: Any) -> int:
        deltas[attempt.job.id] = delta
        return 1

    module.ObjectStore = lambda _: objects  # type: ignore[assignment]
    kept = SimpleNamespace(set_unread=lambda *_: None, get=lambda _: None, log_sheet=lambda *_: None)
    module.JobStore = module.VersionStore = lambda *_: kept  # type: ignore[assignment]
    module.Reporter = lambda *_: reporter  # type: ignore[assignment]
    module.Attempt._register = register  # type: ignore[method-assign]
    ray.train.get_preemption_info = lambda: None  # Ray Train knows, and is not here
    settings = Settings(device="cpu", compute_threads=1, work_dir=Path(out).parent / "work")
    warm, ranks = WarmTuner(folder, settings, rank), Ranks()

    def attempt(name: str, memory: str | JobMemory) -> dict[str, Any]:
        module.Attempt(Lease(a_job(name, memory), 1), warm, settings, None, ranks, None).run()
        failure = outcomes[-1].failure
        return {
            "failure": failure and failure.model_dump(mode="json"),
            "setting": json.loads(objects.get(f"resume/{name}/memory.json", b"null")),
        }

    def confined(name: str, memory: str | JobMemory) -> dict[str, Any]:
        warm.discard()
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + ROOM, hard))
        try:
            return attempt(name, memory)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (hard, hard))

    seen = {"roomy": attempt("roomy", CHECKPOINTED)}
    seen |= {"auto": confined("auto", "auto"), "explicit": confined("explicit", PLAIN), "later": attempt("later", PLAIN)}
    one, other = (deltas[name].tensors if name in deltas else {} for name in ("roomy", "auto"))
    seen["same"] = one.keys() == other.keys() and all(torch.equal(other[name], tensor) for name, tensor in one.items())
    seen["decoded"] = decoded
    Path(out).write_text(json.dumps(seen))
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What came of the attempts."""
    folder = tmp_path_factory.mktemp("attempts")
    base = write_random_base(folder / "base", seed=0)
    (base / "tav.json").write_text(json.dumps({"invert": {"num_inference_steps": 1}}))
    arguments = (any_free("127.0.0.1"), str(base), str(folder / "seen.json"))
    with pytest.MonkeyPatch.context() as patch:  # what is freed goes back to the kernel, so that limits mean something
        patch.setenv("MALLOC_MMAP_THRESHOLD_", str(2**20))
        mp.start_processes(attempts, arguments, nprocs=1, start_method="spawn")
    return json.loads((folder / "seen.json").read_text())


def test_a_tuner_decodes_no_clip_in_its_own_process(seen: Any) -> None:
    assert seen["roomy"]["failure"] is None and seen["decoded"] == []


def test_auto_steps_down_when_memory_runs_out_and_an_explicit_setting_fails(seen: Any) -> None:
    assert seen["roomy"]["failure"] is None and seen["later"]["failure"] is None, seen
    assert seen["auto"]["failure"] is None and seen["auto"]["setting"]["gradient_checkpointing"], seen
    assert seen["same"]  # as a job that was given that setting
    assert seen["explicit"]["failure"]["code"] == "out_of_memory", seen
    assert "`auto`" in seen["explicit"]["failure"]["message"]
