"""Deltas in host memory: one load per version, the most recent kept, refusals remembered for a while."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from services.sampling.deltas import DeltaCache
from tav import Base, Delta, InvertConfig, Latents, TuneConfig
from tav.delta import DeltaMeta, Origin
from tav.errors import BaseMismatch, CorruptVersion
from tav.latents import LatentsMeta
from tav_client.schemas import ModelVersion

BASE = cast(Base, SimpleNamespace(name="offline", fingerprint="f" * 64, device=torch.device("cpu")))
FIELDS: dict[str, Any] = {"caption": "a ball", "num_frames": 2, "size": (8, 8)}


class Store:
    """Writes small versions; counts, waits for `gate`, and raises `error` if there is one."""

    def __init__(self) -> None:
        self.fetched: list[str] = []
        self.gate = threading.Event()
        self.gate.set()
        self.error: Exception | None = None
        self.fingerprint = BASE.fingerprint

    def fetch(self, version: ModelVersion, folder: Path) -> Path:
        self.fetched.append(version.name)
        assert self.gate.wait(10)
        if self.error:
            raise self.error
        origin = Origin(base="offline", fingerprint=self.fingerprint, fps=8.0, **FIELDS)
        meta = DeltaMeta(origin=origin, attention="full", group_norm="frame", tune=TuneConfig())
        Delta({"w": torch.full((2,), 7.0)}, meta).save(folder / "delta.safetensors")
        Latents(torch.ones(1, 4, 2, 1, 1), LatentsMeta(origin=origin, invert=InvertConfig())).save(
            folder / "latents.safetensors"
        )
        return folder


def version(name: str, fingerprint: str = BASE.fingerprint) -> ModelVersion:
    made = {"name": name, "version": 1, "created_at": 0, "job_id": "j", "base": "offline", "base_fingerprint": fingerprint}
    return ModelVersion.model_validate({**made, **FIELDS})


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def now() -> list[float]:
    return [0.0]


@pytest.fixture
def cache(store: Store, now: list[float], tmp_path: Path) -> DeltaCache:
    return DeltaCache(store, BASE, 2, tmp_path / "work", clock=lambda: now[0])


async def test_many_that_ask_at_once_share_one_load_even_if_the_first_goes_away(cache: DeltaCache, store: Store) -> None:
    store.gate.clear()
    asked = [asyncio.ensure_future(cache.get(version("a"))) for _ in range(4)]
    while not store.fetched:
        await asyncio.sleep(0.01)
    asked[0].cancel()
    store.gate.set()
    loaded = await asyncio.gather(*asked[1:])
    assert store.fetched == ["a"] and asked[0].cancelled()
    assert all(one is loaded[0] for one in loaded)
    assert loaded[0].delta.tensors["w"].tolist() == [7.0, 7.0]


async def test_the_least_recently_used_goes_first_and_nothing_is_left_on_disk(
    cache: DeltaCache, store: Store, tmp_path: Path
) -> None:
    for name in ("a", "b", "a", "c", "a", "b"):
        await cache.get(version(name))
    assert store.fetched == ["a", "b", "c", "b"]
    assert list((tmp_path / "work").iterdir()) == []


async def test_a_failed_load_drops_nothing_and_is_not_tried_again_for_a_while(
    cache: DeltaCache, store: Store, now: list[float]
) -> None:
    await cache.get(version("a"))
    await cache.get(version("b"))
    store.error = CorruptVersion("changed")
    for _ in range(3):
        with pytest.raises(CorruptVersion, match="changed"):
            await cache.get(version("c"))
    assert store.fetched == ["a", "b", "c"]
    store.error = None
    await cache.get(version("a"))
    now[0] += 6
    await cache.get(version("c"))
    assert store.fetched == ["a", "b", "c", "c"]


async def test_a_version_of_another_base_is_refused_before_and_after_its_download(cache: DeltaCache, store: Store) -> None:
    with pytest.raises(BaseMismatch, match="offline"):
        await cache.get(version("a", "0" * 64))
    assert store.fetched == []
    store.fingerprint = "0" * 64  # the registry says one thing, the file another
    with pytest.raises(BaseMismatch):
        await cache.get(version("b"))
