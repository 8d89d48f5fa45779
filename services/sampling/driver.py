"""Takes every video from queued to its end, and knows how far it is.

The run is what is kept. Progress is in memory; a gateway that starts finds the open videos in the runs and drives them again.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeVar

from registry.errors import NotFound
from registry.tenants import DEFAULT_TENANT, registered
from registry.versions import VersionStore
from registry.videos import VideoStore
from services import logs, metrics
from services.retries import pauses, retry_async
from services.runtime import without_addresses
from services.sampling.client import SamplerLost, Samples
from services.sampling.errors import SamplingFailed, failure_of
from services.sampling.turns import Turns
from services.settings import Settings
from services.snapshots import Snapshots
from tav.errors import TavError
from tav_client.schemas import Failure, FailureCode, ModelVersion, Video, VideoCreate, VideoStatus

log = logging.getLogger(__name__)
T = TypeVar("T")
Item = dict[str, Any]

_RETRIES, _LONGEST_PAUSE_SECONDS = 4, 5.0
"""Of a call of storage that is away: pauses of 0.5, 1, 2 and 4 seconds."""
_SNAPSHOTS = 2000
"""Of one video: one for each of its steps, of which there are at most 1000, and of an attempt that was lost."""


@dataclass
class _Drive:
    """One video on its way."""

    snapshots: Snapshots[Video]
    cancelled: str | None = None
    """Why, once somebody does not want it any more."""
    drawn: bool = False
    """Only its keeping is left, which is not broken off."""
    task: asyncio.Task[bytes] = field(init=False)


class VideoDriver:
    """Lives in one event loop; blocking calls of the registry run in threads.

    Args:
        videos: Where videos are kept.
        versions: Where a video's version is found again.
        sampler: Draws them.
        settings: How many videos may wait and for how long, and `max_attempts`.
    """

    def __init__(self, videos: VideoStore, versions: VersionStore, sampler: Samples, settings: Settings) -> None:
        self._videos = videos
        self._versions = versions
        self._sampler = sampler
        self._settings = settings
        self._drives: dict[str, _Drive] = {}
        self._unrecorded: dict[str, Video] = {}
        self._turns = Turns(settings)
        self._since = time.time()
        self._count()

    async def create(
        self,
        request: VideoCreate,
        version: ModelVersion,
        unread: Mapping[str, str],
        key: str | None = None,
        tenant: str = DEFAULT_TENANT,
    ) -> Video:
        """Keep a new video of a tenant and start on it, even if the caller is cancelled meanwhile.

        Raises:
            TooManyVideos, QueueFull: it is not accepted.
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
    async def attended(
        self, request: VideoCreate, version: ModelVersion, unread: Mapping[str, str], tenant: str = DEFAULT_TENANT
    ) -> AsyncIterator[Video]:
        """A new video that is wanted as long as the block runs; left earlier, or while it is being created, it is cancelled.

        Raises:
            TooManyVideos, QueueFull: it is not accepted.
        """
        self._turns.admit(tenant)
        making = asyncio.ensure_future(self._create(request, version, unread, None, tenant))
        try:
            yield await asyncio.shield(making)
        finally:
            making.add_done_callback(self._unattended)

    def _unattended(self, making: asyncio.Future[Video]) -> None:
        if making.cancelled():
            return
        if error := making.exception():
            log.info("A video that nobody waits for any more was not created: %s", error)
        else:
            self.cancel(making.result().id, "Whoever waited for the video went away.")

    async def draw(
        self, request: VideoCreate, version: ModelVersion, tenant: str = DEFAULT_TENANT, unread: dict[str, str] | None = None
    ) -> bytes:
        """The content of a video that is kept nowhere. A caller that is cancelled ends the sampling.

        What of its texts the base does not read is put into `unread`.

        Raises:
            TooManyVideos, QueueFull: it is not accepted.
            SamplingFailed: it ended without.
        """

        async def on_step(item: Item) -> None:
            if unread is not None:
                unread.update(item.get("unread", {}))

        self._turns.admit(tenant)
        try:
            content: bytes = (await self._draw("that is not recorded", tenant, request, version, on_step))["video"]
            return content
        finally:
            self._turns.leave(tenant)

    def live(self, video: Video) -> Video:
        """The video as its run says, with what only this process knows."""
        if video.status.final:
            return video
        if ended := self._unrecorded.get(video.id):
            return ended
        drive = self._drives.get(video.id)
        return video if drive is None else drive.snapshots.newest

    def snapshots(self, video_id: str) -> Snapshots[Video] | None:
        """Of a video that this process drives now."""
        drive = self._drives.get(video_id)
        return None if drive is None else drive.snapshots

    async def wait(self, video_id: str) -> bytes:
        """The content of a video that this process drives. The waiting may be cancelled; the video goes on.

        Raises:
            SamplingFailed: it ended without.
        """
        drive = self._drives.get(video_id)
        if drive is None:
            return await asyncio.to_thread(self._videos.content, video_id)
        return await asyncio.shield(drive.task)

    def cancel(self, video_id: str, reason: str) -> None:
        """Nobody wants the video any more: its sampling stops at the next step."""
        if (drive := self._drives.get(video_id)) and drive.cancelled is None:
            drive.cancelled = reason
            if not drive.drawn:
                drive.task.cancel()

    async def delete(self, video_id: str) -> None:
        """End the video if it is on its way, then remove it and its content.

        Raises:
            NotFound: there is none of that id.
            StorageUnavailable: it may still be there: ask again.
        """
        if drive := self._drives.get(video_id):
            self.cancel(video_id, "The video was deleted.")
            await asyncio.wait({drive.task})
        await self._persist(self._videos.delete, video_id)
        self._unrecorded.pop(video_id, None)

    def driven(self, ref: str) -> int:
        """How many videos of a model (`name`) or a version (`name/version`), by MLflow's names, are on their way."""
        videos = [drive.snapshots.newest for drive in self._drives.values()]
        names = [registered(video.model_version, video.tenant) for video in videos]
        return sum(ref in (name, name.rpartition("/")[0]) for name in names)

    async def resume(self) -> None:
        """Drive the videos that an earlier gateway left open."""
        left = await retry_async(lambda: asyncio.to_thread(self._videos.open), pauses(_LONGEST_PAUSE_SECONDS))
        for video in left:
            if video.id in self._drives or video.created_at >= self._since:
                continue
            name, _, number = registered(video.model_version, video.tenant).partition("/")
            try:
                version = await self._persist(self._versions.get, name, int(number))
            except NotFound as error:
                failure = Failure(code=FailureCode.corrupt_version, message=f"Its version was deleted. {error}")
                await self._persist(self._videos.fail, video.id, failure)
                continue
            self._turns.enter(video.tenant)
            self._start(video, version, {})

    async def close(self) -> None:
        """Stop; what is open stays open in the runs, for the next gateway."""
        tasks = [drive.task for drive in self._drives.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, video: Video, version: ModelVersion, ids: Mapping[str, str]) -> None:
        drive = self._drives[video.id] = _Drive(Snapshots(video, _SNAPSHOTS))
        # Its own context: Ray Serve would otherwise count it to the HTTP request, and end it with that.
        context = contextvars.Context()
        context.run(logs.know, **{**ids, **logs.about_video(video)})
        drive.task = asyncio.get_running_loop().create_task(self._drive(video, version, drive), context=context)
        drive.task.add_done_callback(lambda task: self._ended(video.id, task))

    def _ended(self, video_id: str, task: asyncio.Task[bytes]) -> None:
        snapshots = self._drives.pop(video_id).snapshots
        snapshots.close()
        self._count()
        video = snapshots.newest
        self._turns.leave(video.tenant)
        if task.cancelled() or not video.status.final:
            return
        code = video.error.code.value if video.error else ""
        metrics.VIDEOS_ENDED.inc(tags={"status": video.status.value, "code": code})
        with logs.about(**logs.about_video(video)):
            if error := task.exception():
                log.info("video %s failed with %s: %s", video_id, code, error)
            else:
                metrics.VIDEO_SECONDS.observe(max(0.0, time.time() - video.created_at))
                log.info("video %s is completed", video_id)

    def _count(self) -> None:
        states = Counter(drive.snapshots.newest.status for drive in self._drives.values())
        open_states = {status.value: states[status] for status in VideoStatus if not status.final}
        metrics.set_states(metrics.VIDEOS, "status", open_states)

    async def _drive(self, video: Video, version: ModelVersion, drive: _Drive) -> bytes:
        self._count()
        log.info("video %s of %s is queued", video.id, video.model_version)
        try:
            request = VideoCreate.model_validate(video.request.model_dump())
            drawn = await self._draw(video.id, video.tenant, request, version, lambda item: self._step(drive, item))
            drive.drawn = True
            done = await self._persist(
                self._videos.complete,
                video.id,
                drawn["video"],
                drawn["seconds"],
                tuple(drawn["size"]),
                {**drawn.get("metrics", {}), "latency_seconds": drawn["latency_s"]},
                drawn.get("latents_sha256"),
                drawn.get("sheet"),
            )
            drive.snapshots.publish(done)
            content: bytes = drawn["video"]
            return content
        except asyncio.CancelledError:
            if drive.cancelled is None:
                raise  # the gateway ends: the next one takes it up
            failure = Failure(code=FailureCode.cancelled, message=drive.cancelled)
        except SamplingFailed as error:
            failure = error.failure
        except NotFound as error:
            if error.kind == "video":  # somebody deleted its run in MLflow: a cancel
                failure = Failure(code=FailureCode.cancelled, message="The video's run was deleted in MLflow.")
            else:
                failure = failure_of(error)
        except TavError as error:
            failure = failure_of(error)
        except Exception:
            log.exception("Video %s failed", video.id)
            failure = Failure(code=FailureCode.internal, message="A defect of the service ended it; its log says where.")
        await self._fail(drive, failure)
        raise SamplingFailed(failure)

    async def _draw(
        self, name: str, tenant: str, request: VideoCreate, version: ModelVersion, on_step: Callable[[Item], Awaitable[None]]
    ) -> Item:
        reason = ""
        for attempt in range(1, self._settings.max_attempts + 1):
            try:
                async with (
                    asyncio.timeout(self._settings.video_queue_seconds) as waiting,
                    self._turns.turn(tenant, version.base_fingerprint),
                    aclosing(self._sampler.sample(request, version)) as items,
                ):
                    async for item in items:
                        waiting.reschedule(None)
                        if "error" in item:
                            raise SamplingFailed(_failure(item["error"]["code"], item["error"]["message"]))
                        if "video" in item:
                            return item
                        await on_step(item)
                reason = "It ended without a result."
            except TimeoutError as error:
                if not waiting.expired():
                    raise
                waited = f"{self._settings.video_queue_seconds:g} s"
                message = f"No sampler was free, or could be started, within {waited}: ask again when less is waiting."
                raise SamplingFailed(Failure(code=FailureCode.no_resources, message=message)) from error
            except SamplerLost as error:
                reason = str(error).strip().splitlines()[-1]
            log.warning("Video %s lost its sampler (attempt %d): %s", name, attempt, reason)
            await asyncio.sleep(attempt)
        said = without_addresses(reason)[:300]
        message = f"The sampler was lost in {self._settings.max_attempts} attempts: ask again. The last time: {said}"
        raise SamplingFailed(Failure(code=FailureCode.worker_lost, message=message))

    async def _step(self, drive: _Drive, item: Item) -> None:
        step, total = item["step"], item["total"]
        begins = drive.snapshots.newest.status is VideoStatus.queued
        unread = item.get("unread") or drive.snapshots.newest.unread
        drive.snapshots.change(
            status=VideoStatus.in_progress, step=step, total_steps=total, progress=min(99, 100 * step // total), unread=unread
        )
        if begins:
            self._count()
            await self._persist(self._videos.start, drive.snapshots.newest.id, unread)

    async def _fail(self, drive: _Drive, failure: Failure) -> None:
        video = drive.snapshots.newest
        try:
            drive.snapshots.publish(await self._persist(self._videos.fail, video.id, failure))
        except TavError as error:
            log.error("The end of video %s cannot be kept: %s", video.id, error)
            drive.snapshots.change(status=VideoStatus.failed, error=failure)
            self._unrecorded[video.id] = drive.snapshots.newest

    async def _persist(self, write: Callable[..., T], *args: Any) -> T:
        """Call the registry in a thread, again for some seconds while storage is away."""
        return await retry_async(lambda: _whole(write, *args), islice(pauses(_LONGEST_PAUSE_SECONDS), _RETRIES))


async def _whole(write: Callable[..., T], *args: Any) -> T:
    """A write in a thread, which is waited for by a task that is cancelled, too: the next write must not overtake it."""
    writing = asyncio.ensure_future(asyncio.to_thread(write, *args))
    try:
        return await asyncio.shield(writing)
    except asyncio.CancelledError:
        await asyncio.wait({writing})
        raise


def _failure(code: str, message: str) -> Failure:
    known = code in FailureCode.__members__
    return Failure(code=FailureCode(code) if known else FailureCode.internal, message=message)
