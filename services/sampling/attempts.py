"""Sampling one video: wait for its turn, ask a sampler, and ask again where the sampler is lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing

from services.runtime import without_addresses
from services.sampling.client import ServeSampler
from services.sampling.errors import SamplerLost, SamplingFailed
from services.sampling.messages import SampledVideo, Step
from services.sampling.turns import Turns
from services.settings import Settings
from tav_client.schemas import Failure, FailureCode, ModelVersion, VideoCreate

log = logging.getLogger(__name__)

OnStep = Callable[[Step], Awaitable[None]]


class Attempts:
    """Samples videos, each in up to `max_attempts` attempts.

    Args:
        sampler: of all bases.
        turns: which tenant's video is next.
        settings: `video_queue_seconds` and `max_attempts`.
    """

    def __init__(self, sampler: ServeSampler, turns: Turns, settings: Settings) -> None:
        self._sampler = sampler
        self._turns = turns
        self._settings = settings

    async def sample(
        self, name: str, tenant: str, request: VideoCreate, version: ModelVersion, on_step: OnStep
    ) -> SampledVideo:
        """Sample one video. Cancelling stops the sampler at the next step.

        Args:
            name: of the video, in log lines.
            tenant: whose turn it waits for.
            request: the video.
            version: what its `model` refers to.
            on_step: called with every step; after a lost sampler they begin again at 0.

        Raises:
            SamplingFailed: the sampler refuses it or failed, none was free in time, or one was lost in every attempt.
        """
        reason = ""
        for attempt in range(1, self._settings.max_attempts + 1):
            try:
                if (sampled := await self._attempt(tenant, request, version, on_step)) is not None:
                    return sampled
                reason = "It ended without a result."
            except SamplerLost as error:
                reason = str(error).strip().splitlines()[-1]
            log.warning("video %s lost its sampler (attempt %d): %s", name, attempt, reason)
            await asyncio.sleep(attempt)
        reason = without_addresses(reason)[:300]
        message = f"The sampler was lost in {self._settings.max_attempts} attempts: ask again. The last time: {reason}"
        raise SamplingFailed(Failure(code=FailureCode.worker_lost, message=message))

    async def _attempt(self, tenant: str, request: VideoCreate, version: ModelVersion, on_step: OnStep) -> SampledVideo | None:
        """Ask once; the time in the queue ends with the sampler's first reply."""
        try:
            async with (
                asyncio.timeout(self._settings.video_queue_seconds) as in_queue,
                self._turns.turn(tenant, version.base_fingerprint),
                aclosing(self._sampler.sample(request, version)) as replies,
            ):
                async for reply in replies:
                    in_queue.reschedule(None)
                    if isinstance(reply, Failure):
                        raise SamplingFailed(reply)
                    if isinstance(reply, SampledVideo):
                        return reply
                    await on_step(reply)
        except TimeoutError as error:
            if not in_queue.expired():
                raise
            limit = f"{self._settings.video_queue_seconds:g} s"
            message = f"No sampler was free, or could be started, within {limit}: ask again when less is waiting."
            raise SamplingFailed(Failure(code=FailureCode.no_resources, message=message)) from error
        return None
