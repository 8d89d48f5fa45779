"""One video from queued to its end."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Callable, Mapping

from pydantic import ValidationError

from registry.errors import NotFound
from registry.videos import VideoStore
from services import logs
from services.sampling import storage
from services.sampling.attempts import Attempts
from services.sampling.errors import SamplingFailed
from services.sampling.messages import Step, failure_of
from services.snapshots import Snapshots
from tav.errors import InvalidConfig, TavError
from tav.sentences import sentence
from tav_client.schemas import Failure, FailureCode, ModelVersion, Video, VideoCreate, VideoStatus

log = logging.getLogger(__name__)

_SNAPSHOTS = 2000
"""Of one video: one for each of its steps, of which there are at most 1000, and of an attempt that was lost."""


class OpenVideo:
    """A video that has not ended, and the task that samples it. Lives in one event loop.

    Args:
        video: as its run says.
        version: what its `model` refers to.
        videos: where it is stored.
        attempts: samples it.
        on_status: called after its status has changed.
    """

    def __init__(
        self, video: Video, version: ModelVersion, videos: VideoStore, attempts: Attempts, on_status: Callable[[], None]
    ) -> None:
        self.snapshots = Snapshots(video, _SNAPSHOTS)
        self.task: asyncio.Task[bytes]
        """Returns the content, or raises `SamplingFailed`; set by `start`."""
        self.stored = True
        """Whether the run says how the video ended; False where storage stayed away."""
        self._version = version
        self._videos = videos
        self._attempts = attempts
        self._on_status = on_status
        self._cancel_reason: str | None = None
        self._sampled = False

    @property
    def newest(self) -> Video:
        """The video as it is now."""
        return self.snapshots.newest

    def start(self, ids: Mapping[str, str]) -> None:
        """Start the task.

        Args:
            ids: for its log lines, beside the video's own.
        """
        # A context of its own: Ray Serve would otherwise count the task to the HTTP request, and end it with that.
        context = contextvars.Context()
        context.run(logs.know, **{**ids, **logs.about_video(self.newest)})
        self.task = asyncio.get_running_loop().create_task(self._run(), context=context)

    def cancel(self, reason: str) -> None:
        """End the video as failed at the sampler's next step. One that is sampled already is stored and completes.

        Args:
            reason: a sentence, the failure's message.
        """
        if self._cancel_reason is None:
            self._cancel_reason = reason
            if not self._sampled:
                self.task.cancel()

    async def _run(self) -> bytes:
        self._on_status()
        log.info("video %s of %s is queued", self.newest.id, self.newest.model_version)
        try:
            return await self._sample()
        except asyncio.CancelledError:
            if self._cancel_reason is None:
                raise  # the gateway ends: the next one resumes the video
            failure = Failure(code=FailureCode.cancelled, message=self._cancel_reason)
        except NotFound as error:
            failure = failure_of(error)
            if error.kind == "video":
                failure = Failure(code=FailureCode.cancelled, message="The video's run was deleted in MLflow.")
        except TavError as error:
            failure = failure_of(error)
        except Exception:
            log.exception("video %s failed by a defect", self.newest.id)
            failure = Failure(code=FailureCode.internal, message="A defect of the service ended it; its log says where.")
        await self._fail(failure)
        raise SamplingFailed(failure)

    async def _sample(self) -> bytes:
        video = self.newest
        sampled = await self._attempts.sample(video.id, video.tenant, _request_of(video), self._version, self._on_step)
        self._sampled = True
        completed = await storage.call(
            self._videos.complete,
            video.id,
            sampled.content,
            sampled.seconds,
            sampled.size,
            sampled.metrics,
            sampled.latents_sha256,
            sampled.contact_sheet,
        )
        self.snapshots.publish(completed)
        return sampled.content

    async def _on_step(self, step: Step) -> None:
        first = self.newest.status is VideoStatus.queued
        unread = dict(step.unread) or self.newest.unread
        self.snapshots.change(
            status=VideoStatus.in_progress,
            step=step.step,
            total_steps=step.total,
            progress=min(99, 100 * step.step // step.total),
            unread=unread,
        )
        if first:
            self._on_status()
            await storage.call(self._videos.start, self.newest.id, unread)

    async def _fail(self, failure: Failure) -> None:
        try:
            self.snapshots.publish(await storage.call(self._videos.fail, self.newest.id, failure))
        except TavError as error:
            log.error("the end of video %s cannot be stored: %s", self.newest.id, error)
            self.snapshots.change(status=VideoStatus.failed, error=failure)
            self.stored = False


def _request_of(video: Video) -> VideoCreate:
    """Return the request of a video, which an earlier release may have accepted.

    Raises:
        InvalidConfig: this release refuses it.
    """
    try:
        return VideoCreate.model_validate(video.request.model_dump())
    except ValidationError as error:
        faults = sentence(error, VideoCreate)
        raise InvalidConfig(f"The video was accepted by an earlier release, and this one refuses it: {faults}") from error
