"""The gateway's open videos: each is driven to its end, and is known to be as far as it is.

A video's run is what is stored. Progress is in memory: a gateway that starts finds the open videos among the runs, and
begins them anew.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from registry.errors import NotFound
from registry.tenants import DEFAULT_TENANT, registered
from registry.versions import VersionStore
from registry.videos import VideoStore
from services import logs, metrics
from services.retries import pauses, retry_async
from services.sampling import storage
from services.sampling.attempts import Attempts
from services.sampling.client import ServeSampler
from services.sampling.messages import Step
from services.sampling.open_video import OpenVideo
from services.sampling.turns import Turns
from services.settings import Settings
from services.snapshots import Snapshots
from tav_client.schemas import Failure, FailureCode, ModelVersion, Video, VideoCreate, VideoStatus

log = logging.getLogger(__name__)

_LONGEST_PAUSE_SECONDS = 5.0


class VideoDriver:
    """Lives in one event loop; blocking calls of the registry run in threads.

    Args:
        videos: where videos are stored.
        versions: where the version of a video that is resumed is looked up.
        sampler: of all bases.
        settings: how many videos may wait and for how long, and `max_attempts`.
    """

    def __init__(self, videos: VideoStore, versions: VersionStore, sampler: ServeSampler, settings: Settings) -> None:
        self._videos = videos
        self._versions = versions
        self._turns = Turns(settings)
        self._attempts = Attempts(sampler, self._turns, settings)
        self._open: dict[str, OpenVideo] = {}
        self._unstored: dict[str, Video] = {}
        """Videos that have failed while storage was away: their runs say that they are open."""
        self._started_at = time.time()
        self._count()

    async def create(
        self,
        request: VideoCreate,
        version: ModelVersion,
        unread: Mapping[str, str],
        key: str | None = None,
        tenant: str = DEFAULT_TENANT,
    ) -> Video:
        """Store a new video and start on it, even if the caller is cancelled meanwhile.

        Args:
            request: the video.
            version: what its `model` refers to.
            unread: the ends of its texts that the base does not read, by field, as far as they are known.
            key: the call's idempotency key.
            tenant: whose video it is.

        Raises:
            TooManyVideos: the tenant has as many waiting videos as it may have.
            QueueFull: all tenants together have.
        """
        self._turns.admit(tenant)
        return await asyncio.shield(self._create(request, version, unread, key, tenant))

    async def _create(
        self, request: VideoCreate, version: ModelVersion, unread: Mapping[str, str], key: str | None, tenant: str
    ) -> Video:
        request_id = logs.ids().get("request_id")
        try:
            video = await asyncio.to_thread(
                self._videos.create, request, version, key, request_id, tenant=tenant, unread=unread
            )
        except BaseException:
            self._turns.leave(tenant)
            raise
        self._start(video, version, logs.ids())
        return video

    @asynccontextmanager
    async def create_for_caller(
        self, request: VideoCreate, version: ModelVersion, unread: Mapping[str, str], tenant: str = DEFAULT_TENANT
    ) -> AsyncIterator[Video]:
        """Create a video for a caller that waits for it: one that is open when the block ends is cancelled.

        So is one that is still being created when the caller is cancelled. Arguments and errors are those of `create`.
        """
        self._turns.admit(tenant)
        creating = asyncio.ensure_future(self._create(request, version, unread, None, tenant))
        try:
            yield await asyncio.shield(creating)
        finally:
            creating.add_done_callback(self._cancel_unattended)

    def _cancel_unattended(self, creating: asyncio.Future[Video]) -> None:
        if creating.cancelled():
            return
        if error := creating.exception():
            log.info("a video whose caller has gone was not created: %s", error)
        else:
            self.cancel(creating.result().id, "Whoever waited for the video went away.")

    async def sample_unrecorded(
        self, request: VideoCreate, version: ModelVersion, tenant: str = DEFAULT_TENANT, unread: dict[str, str] | None = None
    ) -> bytes:
        """Return the content of a video that is stored nowhere. Cancelling stops the sampler at the next step.

        Args:
            request: the video.
            version: what its `model` refers to.
            tenant: whose turn it waits for.
            unread: filled with the ends of its texts that the base does not read.

        Raises:
            TooManyVideos: the tenant has as many waiting videos as it may have.
            QueueFull: all tenants together have.
            SamplingFailed: it ended without content.
        """

        async def on_step(step: Step) -> None:
            if unread is not None:
                unread.update(step.unread)

        self._turns.admit(tenant)
        try:
            return (await self._attempts.sample("that is not recorded", tenant, request, version, on_step)).content
        finally:
            self._turns.leave(tenant)

    def live(self, video: Video) -> Video:
        """Return the video as its run says, with what only this process knows."""
        if video.status.final:
            return video
        if failed := self._unstored.get(video.id):
            return failed
        open_video = self._open.get(video.id)
        return video if open_video is None else open_video.newest

    def snapshots(self, video_id: str) -> Snapshots[Video] | None:
        """Return the snapshots of a video that this process drives now."""
        open_video = self._open.get(video_id)
        return None if open_video is None else open_video.snapshots

    async def wait(self, video_id: str) -> bytes:
        """Return the content of a video once it has ended. Cancelling ends the waiting alone.

        Raises:
            SamplingFailed: it ended without content.
        """
        open_video = self._open.get(video_id)
        if open_video is None:
            return await asyncio.to_thread(self._videos.content, video_id)
        return await asyncio.shield(open_video.task)

    def cancel(self, video_id: str, reason: str) -> None:
        """End a video that this process drives; see `OpenVideo.cancel`."""
        if open_video := self._open.get(video_id):
            open_video.cancel(reason)

    async def delete(self, video_id: str) -> None:
        """End the video if it is open, then remove it and its content.

        Raises:
            NotFound: there is no such video.
            StorageUnavailable: it may still be there: ask again.
        """
        if open_video := self._open.get(video_id):
            open_video.cancel("The video was deleted.")
            await asyncio.wait({open_video.task})
        await storage.call(self._videos.delete, video_id)
        self._unstored.pop(video_id, None)

    def count_open(self, ref: str) -> int:
        """Return how many videos of a model (`name`) or a version (`name/version`), by MLflow's names, are open here."""
        videos = [open_video.newest for open_video in self._open.values()]
        names = [registered(video.model_version, video.tenant) for video in videos]
        return sum(ref in (name, name.rpartition("/")[0]) for name in names)

    async def resume(self) -> None:
        """Drive the videos that an earlier gateway left open."""
        videos = await retry_async(lambda: asyncio.to_thread(self._videos.open), pauses(_LONGEST_PAUSE_SECONDS))
        for video in videos:
            if video.id in self._open or video.created_at >= self._started_at:
                continue
            name, _, number = registered(video.model_version, video.tenant).partition("/")
            try:
                version = await storage.call(self._versions.get, name, int(number))
            except NotFound as error:
                failure = Failure(code=FailureCode.corrupt_version, message=f"Its version was deleted. {error}")
                await storage.call(self._videos.fail, video.id, failure)
                continue
            self._turns.enter(video.tenant)
            self._start(video, version, {})

    async def close(self) -> None:
        """Stop sampling. Open videos stay open in their runs, for the next gateway."""
        tasks = [open_video.task for open_video in self._open.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, video: Video, version: ModelVersion, ids: Mapping[str, str]) -> None:
        started = self._open[video.id] = OpenVideo(video, version, self._videos, self._attempts, self._count)
        started.start(ids)
        started.task.add_done_callback(lambda _: self._end(video.id))

    def _end(self, video_id: str) -> None:
        ended = self._open.pop(video_id)
        ended.snapshots.close()
        self._count()
        video = ended.newest
        self._turns.leave(video.tenant)
        if not ended.stored:
            self._unstored[video_id] = video
        if ended.task.cancelled() or not video.status.final:
            return
        code = video.error.code.value if video.error else ""
        metrics.VIDEOS_ENDED.inc(tags={"status": video.status.value, "code": code})
        with logs.about(**logs.about_video(video)):
            if error := ended.task.exception():
                log.info("video %s failed with %s: %s", video_id, code, error)
            else:
                metrics.VIDEO_SECONDS.observe(max(0.0, time.time() - video.created_at))
                log.info("video %s is completed", video_id)

    def _count(self) -> None:
        statuses = Counter(open_video.newest.status for open_video in self._open.values())
        metrics.set_states(
            metrics.VIDEOS, "status", {status.value: statuses[status] for status in VideoStatus if not status.final}
        )
