"""How the gateway asks the samplers, where these or Ray itself fail."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayError, TaskCancelledError
from ray.serve.exceptions import DeploymentUnavailableError, RayServeException

from services.sampling.client import ServeSampler
from services.sampling.errors import SamplerLost
from services.sampling.messages import Reply, Step
from tav_client.schemas import ModelVersion, VideoCreate

VERSION = ModelVersion(
    name="ball",
    version=1,
    created_at=0,
    job_id="j",
    base="offline",
    base_fingerprint="f" * 64,
    caption="a red ball",
    num_frames=8,
    size=(64, 64),
)
REQUEST = VideoCreate(model="ball", prompt="a blue ball")


class Stream:
    """What a handle answers: one step, then `error`. A cancel of what is gone is refused, as Ray does."""

    def __init__(self, error: BaseException | None) -> None:
        self.error, self.cancelled = error, 0

    async def __aiter__(self) -> AsyncIterator[Reply]:
        yield Step(0, 3)
        if self.error is not None:
            raise self.error
        yield Step(1, 3)

    def cancel(self) -> None:
        self.cancelled += 1
        raise self.error or DeploymentUnavailableError("Sampler-offline")


class Handle:
    """A deployment's, as far as it is used."""

    def __init__(self, stream: Stream) -> None:
        self.sample, self.stream = self, stream

    def options(self, **_: Any) -> Handle:
        return self

    def remote(self, *_: Any) -> Stream:
        return self.stream


@pytest.mark.parametrize(
    "error",
    [
        ActorDiedError(),
        ActorUnavailableError("it does not answer", None),
        TaskCancelledError(),
        DeploymentUnavailableError("Sampler-offline"),
        RayServeException("the replica is gone"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_whatever_takes_a_sampler_away_is_a_lost_sampler(error: RayError | RayServeException) -> None:
    with pytest.raises(SamplerLost, match=type(error).__name__):
        async for _ in ServeSampler({"offline": Handle(Stream(error))}).sample(REQUEST, VERSION):
            pass


async def test_a_caller_that_leaves_cancels_once_and_hears_nothing_of_a_cancel_that_fails() -> None:
    stream = Stream(None)
    replies = ServeSampler({"offline": Handle(stream)}).sample(REQUEST, VERSION)
    assert await anext(replies) == Step(0, 3)
    await replies.aclose()
    assert stream.cancelled == 1
