"""Deltas in host memory: fetched and verified once, the most recent ones kept."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor

from tav.base import Base
from tav.delta import Delta
from tav.errors import BaseMismatch, TavError
from tav.latents import Latents
from tav_client.schemas import ModelVersion

_REFUSAL_SECONDS = 5.0


class Fetches(Protocol):
    """Where versions come from; `registry.versions.VersionStore` is one."""

    def fetch(self, version: ModelVersion, folder: Path) -> Path:
        """Download the version's files into `folder`, each checked against its registered digest."""
        ...


@dataclass(frozen=True)
class Loaded:
    """What sampling needs of a version, on the CPU."""

    delta: Delta
    latents: Latents


def version_id(version: ModelVersion) -> str:
    """`name/version`."""
    return f"{version.name}/{version.version}"


class DeltaCache:
    """The most recently used versions of one base. One load per version, however many ask for it at a time.

    An entry that is dropped stays valid for whoever still samples with it.

    Args:
        store: Where versions come from.
        base: What they must have been made with.
        capacity: Versions kept.
        work_dir: Holds the files while they are read.
        clock: Seconds that only grow.
    """

    def __init__(
        self, store: Fetches, base: Base, capacity: int, work_dir: Path, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._base = base
        self._capacity = capacity
        self._work_dir = work_dir
        self._clock = clock
        self._kept: OrderedDict[str, Loaded] = OrderedDict()
        self._loading: dict[str, asyncio.Task[Loaded]] = {}
        self._refused: dict[str, tuple[float, TavError]] = {}

    async def get(self, version: ModelVersion) -> Loaded:
        """The version's delta and inverted latents, loaded unless they are kept.

        A caller that is cancelled does not stop the load: others may wait for it, and the next one will.

        Raises:
            BaseMismatch: made with another base.
            CorruptVersion: an object is missing or not what was registered. Repeated from memory for some seconds.
            StorageUnavailable: S3 does not answer.
        """
        key = version_id(version)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        if refused := self._refused.get(key):
            until, error = refused
            if self._clock() < until:
                raise error.with_traceback(None)
            del self._refused[key]
        task = self._loading.get(key)
        if task is None:
            task = self._loading[key] = asyncio.ensure_future(self._fill(key, version))
            task.add_done_callback(lambda done: None if done.cancelled() else done.exception())  # somebody has seen it
        return await asyncio.shield(task)

    async def _fill(self, key: str, version: ModelVersion) -> Loaded:
        try:
            loaded = await asyncio.to_thread(self._load, version)
        except TavError as error:
            self._refused[key] = (self._clock() + _REFUSAL_SECONDS, error)
            raise
        finally:
            del self._loading[key]
        self._kept[key] = loaded
        while len(self._kept) > self._capacity:
            self._kept.popitem(last=False)
        return loaded

    def _load(self, version: ModelVersion) -> Loaded:
        if version.base_fingerprint != self._base.fingerprint:
            raise BaseMismatch(
                f"{version_id(version)} was made with base {version.base!r} ({version.base_fingerprint[:12]}), but "
                f"{self._base.name!r} ({self._base.fingerprint[:12]}) is in use here: tune the clip again on this one."
            )
        self._work_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="version-", dir=self._work_dir) as folder:
            self._store.fetch(version, Path(folder))
            delta = Delta.load(Path(folder) / "delta.safetensors")
            latents = Latents.load(Path(folder) / "latents.safetensors")
        for origin in (delta.meta.origin, latents.meta.origin):
            origin.check(self._base)
        tensors = {name: self._own(tensor) for name, tensor in delta.tensors.items()}
        return Loaded(Delta(tensors, delta.meta), Latents(self._own(latents.tensor), latents.meta))

    def _own(self, tensor: Tensor) -> Tensor:
        # safetensors may hand out views of the file, which is gone after this
        return tensor.pin_memory() if self._base.device.type == "cuda" else tensor.clone()
