"""Deltas on demand, in three tiers: S3, host memory and, on CUDA, the device's memory."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from torch import Tensor

from registry.tenants import DEFAULT_TENANT, registered
from services import metrics
from services.sampling.client import version_id
from services.sampling.tiers import Budget, Tier
from services.scratch import Scratch
from tav.base import Base
from tav.delta import Delta
from tav.errors import BaseMismatch, TavError
from tav.latents import Latents
from tav_client.schemas import ModelVersion

log = logging.getLogger(__name__)

_REFUSAL_SECONDS = 5.0


class Fetches(Protocol):
    """Where versions come from; `registry.versions.VersionStore` is one."""

    def fetch(self, version: ModelVersion, folder: Path) -> Path:
        """Download the version's files into `folder`, each checked against its registered digest."""
        ...


@dataclass(frozen=True)
class Loaded:
    """What sampling needs of a version, on one device."""

    delta: Delta
    latents: Latents

    @property
    def nbytes(self) -> int:
        """Of all its tensors."""
        return sum(tensor.nbytes for tensor in (*self.delta.tensors.values(), self.latents.tensor))

    def moved(self, move: Callable[[Tensor], Tensor]) -> Loaded:
        """The same with every tensor moved."""
        tensors = {name: move(tensor) for name, tensor in self.delta.tensors.items()}
        return Loaded(replace(self.delta, tensors=tensors), replace(self.latents, tensor=move(self.latents.tensor)))


def _key(version: ModelVersion) -> str:
    """What it is kept under: once a model is deleted, its name and numbers may come again with other deltas."""
    return f"{version.job_id}:{version_id(version)}"


class DeltaCache:
    """Versions of one base, the most recently used at hand. One load per version, however many ask for it at a time.

    Lives in one event loop. A swap copies from the last tier into the network's tensors: on CUDA from device to device, on
    the CPU, where the tiers coincide, from host memory.

    Args:
        store: Where versions come from.
        base: What they must have been made with.
        host: Kept in host memory, pinned on CUDA.
        device: Kept on the device as well.
        work_dir: Holds the files while they are read.
        pinned: References (`name`, `name@alias`, `name/version`, of a tenant `TENANT~name…`) whose versions are never dropped
            once loaded. An alias that moves takes its pin along with the next request for its new version.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        store: Fetches,
        base: Base,
        host: Budget,
        device: Budget,
        work_dir: Path,
        pinned: Iterable[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._base = base
        self._work_dir = work_dir
        self._clock = clock
        self._pins: dict[str, str | None] = dict.fromkeys(registered(ref, DEFAULT_TENANT) for ref in pinned)
        self.host: Tier[Loaded] = Tier(host, _nbytes, self._is_pinned)
        self.device: Tier[Loaded] | None = Tier(device, _nbytes, self._is_pinned) if base.device.type != "cpu" else None
        self._loading: dict[str, asyncio.Task[Loaded]] = {}
        self._refused: dict[str, tuple[float, TavError]] = {}

    def preload(self, version: ModelVersion) -> None:
        """Load a version into host memory now; blocks.

        Raises:
            TavError: as of `use`.
        """
        self.check(version)
        self._repin(version)
        self.host.put(_key(version), self._load(version))

    @asynccontextmanager
    async def use(self, version: ModelVersion) -> AsyncIterator[Loaded]:
        """The version's delta and inverted latents, which stay while the context lasts.

        Nothing is dropped for a version before it has loaded. A caller that is cancelled does not stop the load: others may
        wait for it, and the next one will.

        Raises:
            BaseMismatch: made with another base.
            CorruptVersion: an object is missing or not what was registered. Repeated from memory for some seconds.
            StorageUnavailable: S3 does not answer.
        """
        self.check(version)
        self._repin(version)
        key, began = _key(version), time.perf_counter()
        found = "device" if self.device is not None and key in self.device else "host" if key in self.host else "store"
        if self.device is None:
            with self.host.using(key, await self._on_host(key, version)) as loaded:
                _count(found, began)
                yield loaded
            return
        placed = self.device.get(key)
        if placed is None:
            with self.host.using(key, await self._on_host(key, version)) as loaded:
                placed = await asyncio.to_thread(loaded.moved, self._to_device)
        with self.device.using(key, placed) as loaded:
            _count(found, began)
            yield loaded

    async def _on_host(self, key: str, version: ModelVersion) -> Loaded:
        if (kept := self.host.get(key)) is not None:
            return kept
        self._repeat_refusal(key)
        task = self._loading.get(key)
        if task is None:
            task = self._loading[key] = asyncio.ensure_future(self._fill(key, version))
            task.add_done_callback(lambda done: None if done.cancelled() else done.exception())  # somebody has seen it
        return await asyncio.shield(task)

    async def _fill(self, key: str, version: ModelVersion) -> Loaded:
        try:
            loaded = await asyncio.to_thread(self._load, version)
        except TavError as error:
            self._refused[key] = (self._clock() + _REFUSAL_SECONDS, error.with_traceback(None))
            raise
        finally:
            del self._loading[key]
        self.host.put(key, loaded)
        return loaded

    def _repeat_refusal(self, key: str) -> None:
        now = self._clock()
        self._refused = {name: refusal for name, refusal in self._refused.items() if now < refusal[0]}
        if key in self._refused:
            raise self._refused[key][1].with_traceback(None)

    def check(self, version: ModelVersion) -> None:
        """Refuse what was made with another base, by the registry's record alone.

        Raises:
            BaseMismatch: names both bases.
        """
        if version.base_fingerprint != self._base.fingerprint:
            raise BaseMismatch(
                f"{version_id(version)} was made with base {version.base!r} ({version.base_fingerprint[:12]}), but "
                f"{self._base.name!r} ({self._base.fingerprint[:12]}) is in use here: tune the clip again on this one."
            )

    def _load(self, version: ModelVersion) -> Loaded:
        with Scratch(self._work_dir, "version") as folder:
            self._store.fetch(version, folder)
            delta = Delta.load(folder / "delta.safetensors")
            latents = Latents.load(folder / "latents.safetensors")
        for origin in (delta.meta.origin, latents.meta.origin):
            origin.check(self._base)
        # safetensors may hand out views of the file, which is gone after this
        return Loaded(delta, latents).moved(Tensor.pin_memory if self._base.device.type == "cuda" else Tensor.clone)

    def _to_device(self, tensor: Tensor) -> Tensor:
        return tensor.to(self._base.device, non_blocking=True)

    def _is_pinned(self, key: str) -> bool:
        return key in self._pins.values()

    def _repin(self, version: ModelVersion) -> None:
        """Let the pins follow what the references mean now."""
        key = _key(version)
        names = {version_id(version), *(f"{version.name}@{alias}" for alias in version.aliases)}
        for ref, pinned in self._pins.items():
            if ref in names or (ref == version.name and version.version > int((pinned or "/0").rpartition("/")[2])):
                self._pins[ref] = key
            elif pinned == key and "@" in ref:
                self._pins[ref] = None


def _count(tier: str, began: float) -> None:
    metrics.DELTAS.inc(tags={"tier": tier})
    metrics.SWAP_SECONDS.observe(time.perf_counter() - began, {"tier": tier})


def _nbytes(loaded: Loaded) -> int:
    return loaded.nbytes
