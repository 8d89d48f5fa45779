"""Why the service does not sample a video.

TavError
├── TooManyVideos     the tenant has as many waiting videos as it may have
├── QueueFull         all tenants together have
└── SamplingFailed    a video ended without content; its code is a `FailureCode`

SamplerLost is no answer: the gateway asks another sampler.
"""

from __future__ import annotations

from tav.errors import TavError
from tav_client.schemas import Failure


class TooManyVideos(TavError):
    """The tenant has as many waiting videos as it may have."""

    code = "too_many_videos"


class QueueFull(TavError):
    """As many videos are open as the service accepts at a time."""

    code = "queue_full"


class SamplingFailed(TavError):
    """A video ended without content.

    Args:
        failure: the reason, as the video keeps it.
    """

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.code = failure.code.value


class SamplerLost(Exception):
    """The replica died, or none could be started: asking again may help."""
