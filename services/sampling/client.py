"""How the gateway asks the samplers."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from services import logs
from services.sampling.errors import SamplerLost
from services.sampling.messages import Reply, SampleRequest, version_id
from tav_client.schemas import Failure, FailureCode, ModelVersion, VideoCreate

log = logging.getLogger(__name__)


class ServeSampler:
    """The samplers of every base, each base's behind a Ray Serve deployment handle.

    Args:
        handles: by the base's name, the default base's first.
    """

    def __init__(self, handles: Mapping[str, Any]) -> None:
        self._handles = {base: handle.options(stream=True) for base, handle in handles.items()}
        self._base_of: dict[str, str] = {}
        """By a base's fingerprint, the name it is served under."""

    async def sample(self, video: VideoCreate, version: ModelVersion) -> AsyncGenerator[Reply, None]:
        """Sample a video, if possible on a replica that holds the version. Closing the generator stops the sampling.

        A version belongs to a base by fingerprint, but a deployment is named after its base. A base that is served here under
        another name than the version's is found by asking the samplers of every base in turn, once per fingerprint.

        Yields:
            replies, the last one a `SampledVideo` or a `Failure`.

        Raises:
            SamplerLost: asking again may help.
        """
        name = self._base_of.get(version.base_fingerprint, version.base)
        candidates = [name] if name in self._handles else list(self._handles)
        for base in candidates:
            mismatch = False
            async with aclosing(self._sample_on(base, video, version)) as replies:
                async for reply in replies:
                    mismatch = isinstance(reply, Failure) and reply.code is FailureCode.base_mismatch
                    if not mismatch or base == candidates[-1]:
                        yield reply
            if not mismatch:
                self._base_of[version.base_fingerprint] = base
                return

    async def _sample_on(self, base: str, video: VideoCreate, version: ModelVersion) -> AsyncGenerator[Reply, None]:
        handle = self._handles[base].options(multiplexed_model_id=version_id(version))
        replies = handle.sample.remote(SampleRequest(video, version, dict(logs.ids())))
        try:
            async for reply in replies:
                yield reply
        except (RayError, RayServeException) as error:  # nothing is left to cancel, and Ray refuses that
            raise SamplerLost(f"{type(error).__name__}: {error}") from error
        except BaseException:
            _cancel(replies)
            raise


def _cancel(replies: Any) -> None:
    try:
        replies.cancel()
    except (RayError, RayServeException) as error:
        log.info("there was no sampling left to cancel: %s", error)
