"""How the gateway asks the sampler."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, Protocol

from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from tav_client.schemas import ModelVersion, VideoCreate


class SamplerLost(Exception):
    """The replica died, or none could be started."""


class Samples(Protocol):
    """Whoever draws videos."""

    def sample(self, request: VideoCreate, version: ModelVersion) -> AsyncGenerator[dict[str, Any], None]:
        """Items as of `SamplerDeployment.sample`. Closing the generator stops the sampling.

        Raises:
            SamplerLost: asking again may help.
        """
        ...


class ServeSampler:
    """The sampler behind a Ray Serve deployment handle."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle.options(stream=True)

    async def sample(self, request: VideoCreate, version: ModelVersion) -> AsyncGenerator[dict[str, Any], None]:
        """Ask a replica that holds the version, or else any."""
        handle = self._handle.options(multiplexed_model_id=f"{version.name}/{version.version}")
        items = handle.sample.remote(request.model_dump(mode="json"), version.model_dump(mode="json"))
        ended = False
        try:
            async for item in items:
                yield item
            ended = True
        except (RayError, RayServeException) as error:
            raise SamplerLost(f"{type(error).__name__}: {error}") from error
        finally:
            if not ended:
                items.cancel()
