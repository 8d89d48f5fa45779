"""/v1/videos."""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse

from registry.tenants import called, registered
from services.api.callers import Caller, Who
from services.api.catalog import Catalog
from services.api.deps import Parts
from services.api.events import event_number, follow_video
from services.api.http import content
from services.api.http.bodies import read_fields
from services.api.http.errors import ApiError, invalid, of_tav_error
from services.api.http.idempotency import IdempotencyKey, KeyLocks, checked_key, key_reused
from services.api.http.openapi import fields_body, problems
from services.api.words import as_header, unread_in_video
from services.sampling.errors import SamplingFailed
from services.sampling.estimates import foreseen_refusal
from tav.video import CONTENT_TYPES
from tav_client.schemas import AnyModelName, ModelVersion, Video, VideoCreate, VideoDeleted, VideoPage, VideoStatus

_POLL_MS = "500"
_CONTENT: dict[str, dict[str, str]] = {kind: {} for kind in CONTENT_TYPES.values()}
_SLOWEST, _FASTEST = 0.01, 120.0


def fitted(wanted: VideoCreate, version: ModelVersion, max_pixels: int) -> VideoCreate:
    """The request as the sampler takes it: `seconds` as a rate.

    Raises:
        ApiError: 422, it asks for what the version cannot give.
    """
    if wanted.use_inverted_latents and wanted.num_frames not in (None, version.num_frames):
        raise invalid(
            f"The inverted latents hold {version.num_frames} frames: leave num_frames out, or use_inverted_latents false.",
            "num_frames",
        )
    if wanted.use_inverted_latents and wanted.size not in (None, version.size):
        made = f"{version.size[0]}x{version.size[1]}"
        raise invalid(
            f"The inverted latents are of {made}: leave size out, or use_inverted_latents false, or tune at that size.",
            "size",
        )
    if wanted.size is not None and wanted.size[0] * wanted.size[1] > max_pixels:
        raise invalid(f"A frame may have {max_pixels} pixels at most: ask for less.", "size")
    if wanted.seconds is None:
        return wanted
    if wanted.fps is not None:
        raise invalid("fps and seconds both set the rate: give one of them.", "seconds")
    frames = wanted.num_frames or version.num_frames
    if frames / wanted.seconds > _FASTEST:
        raise invalid(f"{frames} frames in {wanted.seconds:g} s are more than {_FASTEST:g} a second: ask for more.", "seconds")
    if frames / wanted.seconds < _SLOWEST:
        raise invalid(
            f"{frames} frames in {wanted.seconds:g} s are less than one in {1 / _SLOWEST:g} s: ask for less.", "seconds"
        )
    return wanted.model_copy(update={"fps": frames / wanted.seconds, "seconds": None})


def router(parts: Parts) -> APIRouter:
    """The calls on videos."""
    routes = APIRouter(prefix="/videos", tags=["videos"])
    locks = KeyLocks()

    async def accept(request: Request, caller: Caller) -> tuple[VideoCreate, ModelVersion, dict[str, str]]:
        """The request, the version that it means, and what of its texts is not read, as far as that is known here."""
        wanted = await read_fields(request, VideoCreate)
        version = await asyncio.to_thread(Catalog(parts.versions, caller).resolve, wanted.model)
        wanted = fitted(wanted, version, parts.settings.clip_limits.max_pixels)
        if refused := await asyncio.to_thread(foreseen_refusal, wanted, version, parts.settings):
            raise invalid(f"{refused}.", "model" if wanted.use_inverted_latents else "size")
        return wanted, version, await asyncio.to_thread(unread_in_video, wanted, version)

    async def drawn(
        wanted: VideoCreate, version: ModelVersion, unread: dict[str, str], tenant: str, headers: dict[str, str]
    ) -> bytes:
        """The content; whoever cancels this, at whatever moment, ends the video. What it says of itself goes into `headers`."""
        told: dict[str, str] = {}
        try:
            if not wanted.record:
                return await parts.driver.draw(wanted, version, tenant, told)
            async with parts.driver.attended(wanted, version, unread, tenant) as video:
                headers["x-tav-video-id"] = video.id
                snapshots = parts.driver.snapshots(video.id)
                content = await parts.driver.wait(video.id)
                told |= snapshots.newest.unread if snapshots else video.unread
                return content
        finally:
            headers |= as_header(told)

    async def now(video_id: str, caller: Caller) -> Video:
        return parts.driver.live(await asyncio.to_thread(parts.videos.get, video_id, caller.scope))

    @routes.post(
        "",
        summary="Create a video",
        response_model=Video,
        responses=problems(404, 409, 415, 422, 503),
        openapi_extra=fields_body(VideoCreate),
    )
    async def create(request: Request, response: Response, caller: Who, key: IdempotencyKey = None) -> Video:
        """Answers at once; ask for the video until it is completed or failed."""
        key, tenant = checked_key(key), caller.one()
        wanted, version, unread = await accept(request, caller)
        if not wanted.record:
            raise invalid("Nothing is kept of a video without record: ask for it at /v1/videos/sync, or record it.", "record")
        async with locks.hold(key and f"{tenant}:{key}"):
            video = None if key is None else await asyncio.to_thread(parts.videos.find, key, tenant)
            if video is None:
                video = await parts.driver.create(wanted, version, unread, key, tenant)
            elif video.request.model_dump() != wanted.model_dump():
                raise key_reused()
        return _answer(parts.driver.live(video), response)

    @routes.post(
        "/sync",
        summary="Create a video and wait for it",
        response_class=Response,
        responses={200: {"content": _CONTENT, "description": "The video's bytes"}, **problems(404, 409, 415, 422, 500, 503)},
        openapi_extra=fields_body(VideoCreate),
    )
    async def sync(request: Request, caller: Who) -> Response:
        """The video's bytes, for `curl -o`. A caller that goes away ends the sampling."""
        tenant = caller.one()
        wanted, version, unread = await accept(request, caller)
        headers = {"x-tav-model-version": f"{called(version.name, tenant)}/{version.version}"}
        gone = asyncio.ensure_future(_disconnected(request))
        done = asyncio.ensure_future(drawn(wanted, version, unread, tenant, headers))
        try:
            await asyncio.wait({gone, done}, return_when=asyncio.FIRST_COMPLETED)
            if not done.done():
                return Response(status_code=499)  # nobody hears it
            kind = CONTENT_TYPES[wanted.format]
            told = headers | content.named(headers["x-tav-model-version"], kind, headers.get("x-tav-video-id", ""))
            return Response(done.result(), media_type=kind, headers=told)
        except SamplingFailed as error:
            answer = of_tav_error(error)
            answer.headers |= headers
            raise answer from error
        finally:
            gone.cancel()
            done.cancel()

    @routes.get("", summary="List videos", responses=problems(422, 503))
    async def list_videos(
        caller: Who,
        after: Annotated[str | None, Query(max_length=512, description="The former page's `next_cursor`.")] = None,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        order: Literal["asc", "desc"] = "desc",
        model: Annotated[AnyModelName | None, Query(description="Of this model only.")] = None,
    ) -> VideoPage:
        """Newest first, unless `order` is `asc`."""
        of = model and registered(model, caller.viewer)
        page = await asyncio.to_thread(parts.videos.list, after, limit, of, order == "asc", caller.scope)
        page.data = [parts.driver.live(video) for video in page.data]
        return page

    @routes.get("/{video_id}", summary="Get a video", responses=problems(404, 503))
    async def get(video_id: str, response: Response, caller: Who) -> Video:
        """The video as it is now; `progress` is in percent."""
        return _answer(await now(video_id, caller), response)

    @routes.delete("/{video_id}", summary="Delete a video", responses=problems(404, 503))
    async def delete(video_id: str, caller: Who) -> VideoDeleted:
        """Removes the run and the content. One that is on its way is ended first, at the sampler's next step."""
        video = await asyncio.to_thread(parts.videos.get, video_id, caller.scope)
        await asyncio.shield(parts.driver.delete(video_id))
        caller.did(f"deleted video {video_id}", video.tenant)
        return VideoDeleted(id=video_id)

    @routes.get(
        "/{video_id}/events",
        summary="Follow a video",
        response_class=StreamingResponse,
        responses={200: {"content": {"text/event-stream": {}}}, **problems(404, 503)},
    )
    async def events(
        video_id: str, caller: Who, last: Annotated[str | None, Header(alias="Last-Event-ID")] = None
    ) -> StreamingResponse:
        """Server-sent events named `video`, one for every step, each a whole `Video`; the stream ends after the final one."""
        return StreamingResponse(
            follow_video(await now(video_id, caller), event_number(last), parts.driver, parts.videos),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )

    @routes.get(
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
        request: Request, video_id: str, caller: Who, variant: content.Variant = content.Variant.video
    ) -> Response:
        """The bytes of a completed video; whole, or one range of them."""
        video = await now(video_id, caller)
        if video.status is VideoStatus.failed and video.error:
            detail = f"The video failed and will have no content: {video.error.message}"
            raise ApiError(409, "video_not_ready", detail)
        if video.status is not VideoStatus.completed:
            raise ApiError(409, "video_not_ready", f"The video is {video.status.value}: wait until it is completed.")
        data = await asyncio.to_thread(parts.videos.content, video_id)
        return content.answer(request, video, *await asyncio.to_thread(content.rendered, video, data, variant))

    return routes


def _answer(video: Video, response: Response) -> Video:
    if not video.status.final:
        response.headers["openai-poll-after-ms"] = _POLL_MS
    return video


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
