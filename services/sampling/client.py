"""How the gateway asks the samplers."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, Protocol

from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from services import logs
from tav_client.schemas import ModelVersion, VideoCreate

log = logging.getLogger(__name__)


class SamplerLost(Exception):
    """The replica died, or none could be started."""


def version_id(version: ModelVersion) -> str:
    """`name/version`: what requests are routed by."""
    return f"{version.name}/{version.version}"


class Samples(Protocol):
    """Whoever draws videos."""

    def sample(self, request: VideoCreate, version: ModelVersion) -> AsyncGenerator[dict[str, Any], None]:
        """Items as of `SamplerDeployment.sample`. Closing the generator stops the sampling.

        Raises:
            SamplerLost: asking again may help.
        """
        ...


class ServeSampler:
    """The samplers of every base, each behind a Ray Serve deployment handle.

    Args:
        handles: By the base's name, the default base's first.
    """

    def __init__(self, handles: Mapping[str, Any]) -> None:
        self._handles = {base: handle.options(stream=True) for base, handle in handles.items()}
        self._known: dict[str, str] = {}

    async def sample(self, request: VideoCreate, version: ModelVersion) -> AsyncGenerator[dict[str, Any], None]:
        """Ask a replica that holds the version, or else any of its base.

        A base goes by its name. What binds a version is the fingerprint, though: one whose base has another name here is
        found by asking the bases in turn, once per fingerprint.
        """
        name = self._known.get(version.base_fingerprint, version.base)
        candidates = [name] if name in self._handles else list(self._handles)
        for base in candidates:
            mismatch = False
            async with aclosing(self._ask(base, request, version)) as items:
                async for item in items:
                    mismatch = item.get("error", {}).get("code") == "base_mismatch"
                    if not mismatch or base == candidates[-1]:
                        yield item
            if not mismatch:
                self._known[version.base_fingerprint] = base
                return

    async def _ask(self, base: str, request: VideoCreate, version: ModelVersion) -> AsyncGenerator[dict[str, Any], None]:
        handle = self._handles[base].options(multiplexed_model_id=version_id(version))
        asked = request.model_dump(mode="json"), version.model_dump(mode="json")
        items = handle.sample.remote(*asked, dict(logs.ids()))
        try:
            async for item in items:
                yield item
        except (RayError, RayServeException) as error:  # nothing is left to cancel, and Ray refuses that
            raise SamplerLost(f"{type(error).__name__}: {error}") from error
        except BaseException:
            _cancel(items)
            raise


def _cancel(items: Any) -> None:
    """The caller has gone, or will not go on."""
    try:
        items.cancel()
    except (RayError, RayServeException) as error:
        log.info("There was no sampling left to cancel: %s", error)
