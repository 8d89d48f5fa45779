"""Swapping deltas again and again on a real network."""

from __future__ import annotations

import gc
import random
import shutil
from pathlib import Path

import pytest
import torch

from services.sampling.deltas import DeltaCache
from services.sampling.tiers import Budget
from tav import Base, Delta, Latents, Sampler
from tav.config import InvertConfig, TuneConfig
from tav.delta import DeltaMeta, Origin
from tav.inflation import is_tuned
from tav.latents import LatentsMeta
from tav_client.schemas import ModelVersion
from tests.tav.conftest import write_random_base

pytestmark = pytest.mark.slow

VERSIONS, SWAPS, HOST = 20, 1000, 8


class Folders:
    """Versions as a worker left them, each in a folder of its own."""

    def __init__(self, root: Path, base: Base, sampler: Sampler) -> None:
        self.root, self.fetches = root, 0
        origin = Origin(base=base.name, fingerprint=base.fingerprint, caption="x", num_frames=2, size=(16, 16), fps=8.0)
        meta = DeltaMeta(origin=origin, attention="sparse_causal", group_norm="frame", tune=TuneConfig())
        self.versions = []
        for number in range(1, VERSIONS + 1):
            tensors = {
                name: torch.full(tensor.shape, number / 100, dtype=torch.float16)
                for name, tensor in sampler.net.named_parameters()
                if is_tuned(name)
            }
            (root / str(number)).mkdir()
            Delta(tensors, meta).save(root / str(number) / "delta.safetensors")
            latents = Latents(torch.zeros(1, 4, 2, 8, 8), LatentsMeta(origin=origin, invert=InvertConfig()))
            latents.save(root / str(number) / "latents.safetensors")
            facts = {"name": "x", "version": number, "created_at": 0, "job_id": "j", "base": base.name}
            record = {**facts, "base_fingerprint": base.fingerprint, "caption": "x", "num_frames": 2, "size": (16, 16)}
            self.versions.append(ModelVersion.model_validate(record))

    def fetch(self, version: ModelVersion, folder: Path) -> Path:
        self.fetches += 1
        return Path(shutil.copytree(self.root / str(version.version), folder, dirs_exist_ok=True))


def living() -> tuple[int, int]:
    """Count the tensors and their bytes."""
    gc.collect()
    tensors = [thing for thing in gc.get_objects() if isinstance(thing, torch.Tensor)]
    return len(tensors), sum(tensor.nbytes for tensor in tensors)


async def test_a_thousand_swaps_between_twenty_versions_take_no_more_memory_than_the_first_few(tmp_path: Path) -> None:
    base = Base.load(str(write_random_base(tmp_path / "base", seed=5)))
    sampler = Sampler(base)
    (tmp_path / "versions").mkdir()
    store = Folders(tmp_path / "versions", base, sampler)
    cache = DeltaCache(store, base, Budget(count=HOST), Budget(count=0), tmp_path / "work")
    tuned = {name: tensor for name, tensor in sampler.net.named_parameters() if is_tuned(name)}
    places = {name: tensor.data_ptr() for name, tensor in sampler.net.named_parameters()}
    chosen = random.Random(0)
    early = None
    for swap in range(SWAPS):
        version = chosen.choice(store.versions)
        async with cache.use(version) as loaded:
            loaded.delta.apply(sampler.net)
        del loaded
        value = torch.tensor(version.version / 100, dtype=torch.float16).float()
        assert all(tensor.flatten()[-1] == value for tensor in tuned.values())
        if swap == 2 * VERSIONS:
            early = living()
    assert living() == early
    assert len(cache.host) == HOST and pytest.approx(store.fetches, rel=0.1) == SWAPS * (1 - HOST / VERSIONS)
    assert places == {name: tensor.data_ptr() for name, tensor in sampler.net.named_parameters()}
