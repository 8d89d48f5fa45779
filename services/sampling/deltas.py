"""Versions on demand, in three tiers: S3, host memory and, on CUDA, the device's memory."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from registry.tenants import DEFAULT_TENANT, registered
from registry.versions import VersionStore
from services import metrics
from services.sampling.messages import version_id
from services.sampling.tiers import Budget, Tier
from services.scratch import Scratch
from tav.base import Base
from tav.bases.names import is_same_base
from tav.delta import Delta
from tav.errors import BaseMismatch, TavError
from tav.latents import Latents
from tav_client.schemas import ModelVersion

log = logging.getLogger(__name__)

_ERROR_SECONDS = 5.0
"""How long an error is repeated from memory."""


@dataclass(frozen=True)
class LoadedVersion:
    """What sampling needs of a version, in the memory of the host or of the device."""

    delta: Delta
    latents: Latents

    @property
    def nbytes(self) -> int:
        """Bytes of all its tensors."""
        return sum(tensor.nbytes for tensor in (*self.delta.tensors.values(), self.latents.tensor))

    def map(self, move: Callable[[Tensor], Tensor]) -> LoadedVersion:
        """Return a copy with `move` applied to every tensor."""
        tensors = {name: move(tensor) for name, tensor in self.delta.tensors.items()}
        return LoadedVersion(replace(self.delta, tensors=tensors), replace(self.latents, tensor=move(self.latents.tensor)))


def _key(version: ModelVersion) -> str:
    """Return the version's name in the tiers: a deleted model's name and numbers may come again with other deltas."""
    return f"{version.job_id}:{version_id(version)}"


class DeltaCache:
    """The most recently used versions of one base. A version is loaded once, however many requests wait for it.

    Lives in one event loop. A swap copies from the last tier into the network's tensors: on CUDA from device to device, on
    the CPU, where the tiers coincide, from host memory.

    Args:
        store: where versions are fetched.
        base: what they must have been made with.
        host: budget of host memory, whose pages are pinned on CUDA.
        device: budget of the device's memory.
        work_dir: for the files while they are read.
        pinned: references (`name`, `name@alias`, `name/version`, of a tenant `TENANT~name…`) whose versions are never dropped
            once loaded. An alias that moves takes its pin along with the next request for its new version.
        clock: returns seconds that only grow.
    """

    def __init__(
        self,
        store: VersionStore,
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
        self.host: Tier[LoadedVersion] = Tier(host, _nbytes, self._is_pinned)
        self.device: Tier[LoadedVersion] | None = Tier(device, _nbytes, self._is_pinned) if base.device.type != "cpu" else None
        self._loading: dict[str, asyncio.Task[LoadedVersion]] = {}
        self._errors: dict[str, tuple[float, TavError]] = {}
        """By version, the last load's error and until when it is repeated."""

    def preload(self, version: ModelVersion) -> None:
        """Load a version into host memory. Blocks.

        Raises:
            TavError: see `use`.
        """
        self.check(version)
        self._repin(version)
        self.host.put(_key(version), self._load(version))

    @asynccontextmanager
    async def use(self, version: ModelVersion) -> AsyncIterator[LoadedVersion]:
        """Load a version, and hold it in the last tier during the block.

        Nothing is dropped for a version before it has loaded. Cancelling does not stop a load: other requests may wait for it.

        Raises:
            BaseMismatch: it was made with another base.
            CorruptVersion: an object is missing or not what was registered. Repeated from memory for some seconds.
            StorageUnavailable: S3 does not answer.
        """
        self.check(version)
        self._repin(version)
        key, began = _key(version), time.perf_counter()
        tier = "device" if self.device is not None and key in self.device else "host" if key in self.host else "store"
        if self.device is None:
            with self.host.using(key, await self._on_host(key, version)) as loaded:
                _count(tier, began)
                yield loaded
            return
        placed = self.device.get(key)
        if placed is None:
            with self.host.using(key, await self._on_host(key, version)) as loaded:
                placed = await asyncio.to_thread(loaded.map, self._to_device)
        with self.device.using(key, placed) as loaded:
            _count(tier, began)
            yield loaded

    async def _on_host(self, key: str, version: ModelVersion) -> LoadedVersion:
        if (loaded := self.host.get(key)) is not None:
            return loaded
        self._repeat_error(key)
        task = self._loading.get(key)
        if task is None:
            task = self._loading[key] = asyncio.ensure_future(self._fill(key, version))
            task.add_done_callback(lambda done: None if done.cancelled() else done.exception())  # is retrieved, whoever waits
        return await asyncio.shield(task)

    async def _fill(self, key: str, version: ModelVersion) -> LoadedVersion:
        try:
            loaded = await asyncio.to_thread(self._load, version)
        except TavError as error:
            self._errors[key] = (self._clock() + _ERROR_SECONDS, error.with_traceback(None))
            raise
        finally:
            del self._loading[key]
        self.host.put(key, loaded)
        return loaded

    def _repeat_error(self, key: str) -> None:
        now = self._clock()
        self._errors = {name: (until, error) for name, (until, error) in self._errors.items() if now < until}
        if key in self._errors:
            raise self._errors[key][1].with_traceback(None)

    def check(self, version: ModelVersion) -> None:
        """Check a version's base by the registry's record alone.

        Raises:
            BaseMismatch: it was made with another base; both are named.
        """
        if not is_same_base(version.base_fingerprint, self._base.fingerprint):
            raise BaseMismatch(
                f"{version_id(version)} was made with base {version.base!r} ({version.base_fingerprint[:12]}), but "
                f"{self._base.name!r} ({self._base.fingerprint[:12]}) is in use here: tune the clip again on this one."
            )

    def _load(self, version: ModelVersion) -> LoadedVersion:
        with Scratch(self._work_dir, "version") as folder:
            self._store.fetch(version, folder)
            delta = Delta.load(folder / "delta.safetensors")
            latents = Latents.load(folder / "latents.safetensors")
        for origin in (delta.meta.origin, latents.meta.origin):
            origin.check(self._base)
        # safetensors may return views of the file, which is gone after this
        return LoadedVersion(delta, latents).map(Tensor.pin_memory if self._base.device.type == "cuda" else Tensor.clone)

    def _to_device(self, tensor: Tensor) -> Tensor:
        return tensor.to(self._base.device, non_blocking=True)

    def _is_pinned(self, key: str) -> bool:
        return key in self._pins.values()

    def _repin(self, version: ModelVersion) -> None:
        """Pin what the references refer to now."""
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


def _nbytes(loaded: LoadedVersion) -> int:
    return loaded.nbytes
