"""Deltas on demand: one load per version, tiers within their budgets, pins that follow aliases, refusals remembered."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from services.sampling.deltas import DeltaCache, LoadedVersion
from services.sampling.messages import version_id
from services.sampling.tiers import Budget
from services.settings import Settings
from tav import Base, Delta, InvertConfig, Latents, TuneConfig
from tav.delta import DeltaMeta, Origin
from tav.errors import BaseMismatch, CorruptVersion, InvalidConfig
from tav.latents import LatentsMeta
from tav_client.schemas import ModelVersion

BASE = cast(Base, SimpleNamespace(name="offline", fingerprint="f" * 64, device=torch.device("cpu")))
DEVICE_BASE = cast(Base, SimpleNamespace(name="offline", fingerprint="f" * 64, device=torch.device("meta")))
SIZE = 2 * 4 + 4 * 2 * 4
"""Bytes of a small version: two fp32 numbers and the latents."""

Make = Callable[..., DeltaCache]
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
        self.fetched.append(version_id(version))
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


def version(name: str, number: int = 1, fingerprint: str = BASE.fingerprint, aliases: tuple[str, ...] = ()) -> ModelVersion:
    fields = {
        "name": name,
        "version": number,
        "created_at": 0,
        "job_id": "j",
        "base": "offline",
        "base_fingerprint": fingerprint,
    }
    return ModelVersion.model_validate({**fields, **FIELDS, "aliases": aliases})


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def now() -> list[float]:
    return [0.0]


@pytest.fixture
def make(store: Store, now: list[float], tmp_path: Path) -> Callable[..., DeltaCache]:
    def cache(host: str = "2", device: str = "2", base: Base = BASE, pinned: tuple[str, ...] = ()) -> DeltaCache:
        where = tmp_path / "work"
        return DeltaCache(store, base, Budget.parse(host), Budget.parse(device), where, pinned, clock=lambda: now[0])

    return cache


async def load(cache: DeltaCache, *versions: ModelVersion) -> LoadedVersion:
    for one in versions:
        async with cache.use(one) as loaded:
            pass
    return loaded


async def test_a_number_that_comes_again_with_another_delta_is_loaded_again(make: Make, store: Store) -> None:
    cache, first = make(pinned=("ball/1",)), version("ball")
    again = first.model_copy(update={"job_id": "another"})
    await load(cache, first, again, again)
    assert store.fetched == ["ball/1", "ball/1"]


async def test_many_that_ask_at_once_share_one_load_even_if_the_first_goes_away(make: Make, store: Store) -> None:
    cache = make()
    store.gate.clear()
    loads = [asyncio.ensure_future(load(cache, version("a"))) for _ in range(4)]
    while not store.fetched:
        await asyncio.sleep(0.01)
    loads[0].cancel()
    store.gate.set()
    loaded = await asyncio.gather(*loads[1:])
    assert store.fetched == ["a/1"] and loads[0].cancelled()
    assert all(one is loaded[0] for one in loaded)
    assert loaded[0].delta.tensors["w"].tolist() == [7.0, 7.0]


@pytest.mark.parametrize("host", ["2", f"{2 * SIZE}B"])
async def test_the_least_recently_used_goes_first_and_nothing_is_left_on_disk(
    make: Make, store: Store, tmp_path: Path, host: str
) -> None:
    cache = make(host)
    for name in ("a", "b", "a", "c", "a", "b"):
        loaded = await load(cache, version(name))
    assert (loaded.nbytes, cache.host.nbytes) == (SIZE, 2 * SIZE)
    assert store.fetched == ["a/1", "b/1", "c/1", "b/1"]
    assert list((tmp_path / "work").iterdir()) == []


async def test_a_delta_in_use_stays_however_many_others_come(make: Make, store: Store) -> None:
    cache = make("1")
    async with cache.use(version("a")) as used:
        await load(cache, version("b"), version("c"))
        assert await load(cache, version("a")) is used
        assert store.fetched == ["a/1", "b/1", "c/1"]
    await load(cache, version("b"))
    assert len(cache.host) == 1 and "j:a/1" not in cache.host


async def test_a_failed_load_drops_nothing_and_is_not_tried_again_for_a_while(
    make: Make, store: Store, now: list[float]
) -> None:
    cache = make()
    await load(cache, version("a"), version("b"))
    store.error = CorruptVersion("changed")
    for _ in range(3):
        with pytest.raises(CorruptVersion, match="changed"):
            await load(cache, version("c"))
    assert store.fetched == ["a/1", "b/1", "c/1"]
    store.error = None
    await load(cache, version("a"))
    now[0] += 6
    await load(cache, version("c"))
    assert store.fetched == ["a/1", "b/1", "c/1", "c/1"]


async def test_a_version_of_another_base_is_refused_before_and_after_its_download(make: Make, store: Store) -> None:
    cache = make()
    with pytest.raises(BaseMismatch, match="offline"):
        await load(cache, version("a", fingerprint="0" * 64))
    assert store.fetched == []
    store.fingerprint = "0" * 64  # the registry says one thing, the file another
    with pytest.raises(BaseMismatch):
        await load(cache, version("b"))
    assert len(cache.host) == 0


async def test_what_is_preloaded_and_pinned_is_there_at_once_and_never_goes(make: Make, store: Store) -> None:
    cache = make("1", pinned=("a/1", "b@production"))
    cache.preload(version("a"))
    cache.preload(version("b", 3, aliases=("production",)))
    await load(cache, *(version(name) for name in "cdefab"), version("b", 3, aliases=("production",)), version("a"))
    assert [name for name in store.fetched if name in ("a/1", "b/3")] == ["a/1", "b/3"]


async def test_a_pin_follows_its_alias_and_a_bare_name_its_latest_version(make: Make) -> None:
    cache = make("0", pinned=("a@production", "b"))
    await load(cache, version("a", 1, aliases=("production",)), version("b", 1))
    assert "j:a/1" in cache.host and "j:b/1" in cache.host
    await load(cache, version("a", 2, aliases=("production",)), version("b", 2), version("b", 1))
    assert "j:a/2" in cache.host and "j:a/1" not in cache.host
    assert "j:b/2" in cache.host and "j:b/1" not in cache.host
    await load(cache, version("a", 2))  # the alias points elsewhere now
    assert "j:a/2" not in cache.host


async def test_the_device_keeps_fewer_than_the_host_and_is_filled_from_it(make: Make, store: Store) -> None:
    cache = make("3", "1", DEVICE_BASE)
    assert cache.device is not None
    first = await load(cache, version("a"))
    assert {tensor.device.type for tensor in (*first.delta.tensors.values(), first.latents.tensor)} == {"meta"}
    assert await load(cache, version("a")) is first
    again = await load(cache, version("b"), version("a"))
    assert again is not first and len(cache.device) == 1
    assert store.fetched == ["a/1", "b/1"] and len(cache.host) == 2
    async with cache.use(version("a")) as used:
        await load(cache, version("b"))
        assert "j:a/1" in cache.device and await load(cache, version("a")) is used


@pytest.mark.parametrize(
    ("text", "count", "nbytes"), [("16", 16, None), ("8GiB", None, 8 << 30), ("500 MB", None, 500_000_000)]
)
def test_a_budget_is_a_number_or_bytes(text: str, count: int | None, nbytes: int | None) -> None:
    assert Budget.parse(text) == Budget(count, nbytes)
    assert Settings(sampler_deltas=text, sampler_device_deltas=4).sampler_deltas == text
    with pytest.raises(InvalidConfig, match="TAV_SAMPLER_DELTAS"):
        Settings(sampler_deltas="many")
