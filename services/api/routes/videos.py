"""/v1/videos."""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse

from registry.tenants import called, registered
from services.api.deps import CatalogDep, CurrentCaller, SettingsDep, VideoDriverDep, VideoLocksDep, VideoStoreDep
from services.api.events import event_number, event_stream, video_events
from services.api.http import content
from services.api.http.errors import ApiError, invalid, of_tav_error
from services.api.http.idempotency import IdempotencyKey, checked_key, key_reused
from services.api.http.openapi import fields_body, problems
from services.api.unread_texts import unread_header
from services.api.video_requests import read_video_request
from services.sampling.driver import VideoDriver
from services.sampling.errors import SamplingFailed
from tav.video import CONTENT_TYPES
from tav_client.schemas import AnyModelName, ModelVersion, Video, VideoCreate, VideoDeleted, VideoPage, VideoStatus

router = APIRouter(prefix="/videos", tags=["videos"])

_POLL_MS = "500"
_CONTENT: dict[str, dict[str, str]] = {kind: {} for kind in CONTENT_TYPES.values()}


@router.post(
    "",
    summary="Create a video",
    response_model=Video,
    responses=problems(404, 409, 415, 422, 503),
    openapi_extra=fields_body(VideoCreate),
)
async def create_video(
    request: Request,
    response: Response,
    catalog: CatalogDep,
    videos: VideoStoreDep,
    driver: VideoDriverDep,
    locks: VideoLocksDep,
    settings: SettingsDep,
    caller: CurrentCaller,
    key: IdempotencyKey = None,
) -> Video:
    """Answers at once; ask for the video until it is completed or failed."""
    key, tenant = checked_key(key), caller.owner()
    video_request, version, unread = await read_video_request(request, catalog, settings)
    if not video_request.record:
        raise invalid("Nothing is kept of a video without record: ask for it at /v1/videos/sync, or record it.", "record")
    async with locks.hold(key and f"{tenant}:{key}"):
        video = None if key is None else await asyncio.to_thread(videos.find, key, tenant)
        if video is None:
            video = await driver.create(video_request, version, unread, key, tenant)
        elif video.request.model_dump() != video_request.model_dump():
            raise key_reused()
    return _with_poll_header(driver.live(video), response)


def _with_poll_header(video: Video, response: Response) -> Video:
    if not video.status.final:
        response.headers["openai-poll-after-ms"] = _POLL_MS
    return video


@router.post(
    "/sync",
    summary="Create a video and wait for it",
    response_class=Response,
    responses={200: {"content": _CONTENT, "description": "The video's bytes"}, **problems(404, 409, 415, 422, 500, 503)},
    openapi_extra=fields_body(VideoCreate),
)
async def create_video_and_wait(
    request: Request, catalog: CatalogDep, driver: VideoDriverDep, settings: SettingsDep, caller: CurrentCaller
) -> Response:
    """The video's bytes, for `curl -o`. A caller that goes away ends the sampling."""
    tenant = caller.owner()
    video_request, version, unread = await read_video_request(request, catalog, settings)
    headers = {"x-tav-model-version": f"{called(version.name, tenant)}/{version.version}"}
    disconnected = asyncio.ensure_future(_disconnected(request))
    sampled = asyncio.ensure_future(_sample(driver, video_request, version, unread, tenant, headers))
    try:
        await asyncio.wait({disconnected, sampled}, return_when=asyncio.FIRST_COMPLETED)
        if not sampled.done():
            return Response(status_code=499)  # which nobody receives
        kind = CONTENT_TYPES[video_request.format]
        headers |= content.disposition(headers["x-tav-model-version"], kind, headers.get("x-tav-video-id", ""))
        return Response(sampled.result(), media_type=kind, headers=headers)
    except SamplingFailed as error:
        problem = of_tav_error(error)
        problem.headers |= headers
        raise problem from error
    finally:
        disconnected.cancel()
        sampled.cancel()


async def _sample(
    driver: VideoDriver,
    request: VideoCreate,
    version: ModelVersion,
    unread: dict[str, str],
    tenant: str,
    headers: dict[str, str],
) -> bytes:
    """Return the content, and put what is known of the video into `headers`, even if it fails. Cancelling ends the video."""
    sampler_unread: dict[str, str] = {}
    try:
        if not request.record:
            return await driver.sample_unrecorded(request, version, tenant, sampler_unread)
        async with driver.create_for_caller(request, version, unread, tenant) as video:
            headers["x-tav-video-id"] = video.id
            snapshots = driver.snapshots(video.id)
            data = await driver.wait(video.id)
            sampler_unread |= snapshots.newest.unread if snapshots else video.unread
            return data
    finally:
        headers |= unread_header(sampler_unread)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


@router.get("", summary="List videos", responses=problems(422, 503))
async def list_videos(
    videos: VideoStoreDep,
    driver: VideoDriverDep,
    caller: CurrentCaller,
    after: Annotated[str | None, Query(max_length=512, description="The former page's `next_cursor`.")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    order: Literal["asc", "desc"] = "desc",
    model: Annotated[AnyModelName | None, Query(description="Of this model only.")] = None,
) -> VideoPage:
    """Newest first, unless `order` is `asc`."""
    name = model and registered(model, caller.viewer)
    page = await asyncio.to_thread(videos.list, after, limit, name, order == "asc", caller.scope)
    page.data = [driver.live(video) for video in page.data]
    return page


@router.get("/{video_id}", summary="Get a video", responses=problems(404, 503))
async def get_video(
    video_id: str, response: Response, videos: VideoStoreDep, driver: VideoDriverDep, caller: CurrentCaller
) -> Video:
    """The video as it is now; `progress` is in percent."""
    video = await asyncio.to_thread(videos.get, video_id, caller.scope)
    return _with_poll_header(driver.live(video), response)


@router.delete("/{video_id}", summary="Delete a video", responses=problems(404, 503))
async def delete_video(video_id: str, videos: VideoStoreDep, driver: VideoDriverDep, caller: CurrentCaller) -> VideoDeleted:
    """Removes the run and the content. One that is on its way is ended first, at the sampler's next step."""
    video = await asyncio.to_thread(videos.get, video_id, caller.scope)
    await asyncio.shield(driver.delete(video_id))
    caller.audit(f"deleted video {video_id}", video.tenant)
    return VideoDeleted(id=video_id)


@router.get(
    "/{video_id}/events",
    summary="Follow a video",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {}}}, **problems(404, 503)},
)
async def follow_video(
    video_id: str,
    videos: VideoStoreDep,
    driver: VideoDriverDep,
    caller: CurrentCaller,
    last_event_id: Annotated[str | None, Header(alias="Last-Event-ID")] = None,
) -> StreamingResponse:
    """Server-sent events named `video`, one for every step, each a whole `Video`; the stream ends after the final one."""
    video = driver.live(await asyncio.to_thread(videos.get, video_id, caller.scope))
    return event_stream(video_events(video, event_number(last_event_id), driver, videos))


@router.get(
    "/{video_id}/content",
    summary="Get a video's content",
    response_class=Response,
    responses={
        200: {"content": {**_CONTENT, "image/jpeg": {}}, "description": "The video's bytes, or a picture of it"},
        206: {"content": _CONTENT, "description": "The range asked for"},
        304: {"description": "As the caller has it"},
        **problems(404, 409, 416, 422, 503),
    },
)
async def get_content(
    request: Request,
    video_id: str,
    videos: VideoStoreDep,
    driver: VideoDriverDep,
    caller: CurrentCaller,
    variant: content.Variant = content.Variant.video,
) -> Response:
    """The bytes of a completed video; whole, or one range of them."""
    video = driver.live(await asyncio.to_thread(videos.get, video_id, caller.scope))
    if video.status is VideoStatus.failed and video.error:
        detail = f"The video failed and will have no content: {video.error.message}"
        raise ApiError(409, "video_not_ready", detail)
    if video.status is not VideoStatus.completed:
        raise ApiError(409, "video_not_ready", f"The video is {video.status.value}: wait until it is completed.")
    data = await asyncio.to_thread(videos.content, video_id)
    return content.response(request, video, *await asyncio.to_thread(content.render, video, data, variant))
