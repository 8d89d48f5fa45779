"""/v1/videos."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request, Response

from services.api.bodies import read_json
from services.api.driver import SamplingFailed
from services.api.errors import ApiError, invalid, of_failure
from services.api.idempotency import IdempotencyKey, KeyLocks, checked_key, key_reused
from services.api.openapi import json_body, problems
from services.api.parts import Parts
from tav_client.schemas import ModelVersion, Video, VideoCreate, VideoStatus

_POLL_MS = "500"
_CONTENT: dict[str, dict[str, str]] = {"video/mp4": {}, "image/gif": {}}
_TYPES = {"mp4": "video/mp4", "gif": "image/gif"}


def router(parts: Parts) -> APIRouter:
    """The calls on videos."""
    routes = APIRouter(prefix="/videos", tags=["videos"])
    locks = KeyLocks()

    async def accept(request: Request) -> tuple[VideoCreate, ModelVersion]:
        wanted = await read_json(request, VideoCreate)
        version = await asyncio.to_thread(parts.versions.resolve, wanted.model)
        if wanted.use_inverted_latents and wanted.num_frames not in (None, version.num_frames):
            raise invalid(
                f"The inverted latents hold {version.num_frames} frames: leave num_frames out, or use_inverted_latents false.",
                "num_frames",
            )
        return wanted, version

    @routes.post(
        "",
        summary="Create a video",
        response_model=Video,
        responses=problems(404, 409, 415, 422, 503),
        openapi_extra=json_body(VideoCreate),
    )
    async def create(request: Request, response: Response, key: IdempotencyKey = None) -> Video:
        """Answers at once; ask for the video until it is completed or failed."""
        key = checked_key(key)
        wanted, version = await accept(request)
        async with locks.hold(key):
            video = None if key is None else await asyncio.to_thread(parts.videos.find, key)
            if video is None:
                video = await parts.driver.create(wanted, version, key)
            elif video.request != wanted:
                raise key_reused()
        return _answer(parts.driver.live(video), response)

    @routes.post(
        "/sync",
        summary="Create a video and wait for it",
        response_class=Response,
        responses={200: {"content": _CONTENT, "description": "The video's bytes"}, **problems(404, 409, 415, 422, 500, 503)},
        openapi_extra=json_body(VideoCreate),
    )
    async def sync(request: Request) -> Response:
        """The video's bytes, for `curl -o`. A caller that goes away ends the sampling."""
        wanted, version = await accept(request)
        video = await parts.driver.create(wanted, version)
        gone = asyncio.ensure_future(_disconnected(request))
        done = asyncio.ensure_future(parts.driver.wait(video.id))
        try:
            await asyncio.wait({gone, done}, return_when=asyncio.FIRST_COMPLETED)
            if not done.done():
                return Response(status_code=499)  # nobody hears it
            return _content(video, done.result())
        except SamplingFailed as error:
            failure = of_failure(error.failure.code, error.failure.message)
            failure.headers |= {"x-tav-video-id": video.id}
            raise failure from error
        finally:
            gone.cancel()
            if not done.done():
                done.cancel()
                parts.driver.cancel(video.id)

    @routes.get("/{video_id}", summary="Get a video", responses=problems(404, 503))
    async def get(video_id: str, response: Response) -> Video:
        """The video as it is now; `progress` is in percent."""
        return _answer(parts.driver.live(await asyncio.to_thread(parts.videos.get, video_id)), response)

    @routes.get(
        "/{video_id}/content",
        summary="Get a video's content",
        response_class=Response,
        responses={200: {"content": _CONTENT, "description": "The video's bytes"}, **problems(404, 409, 503)},
    )
    async def content(video_id: str) -> Response:
        """The bytes of a completed video."""
        video = parts.driver.live(await asyncio.to_thread(parts.videos.get, video_id))
        if video.status is VideoStatus.failed and video.error:
            detail = f"The video failed and will have no content: {video.error.message}"
            raise ApiError(409, "video_not_ready", detail)
        if video.status is not VideoStatus.completed:
            raise ApiError(409, "video_not_ready", f"The video is {video.status.value}: wait until it is completed.")
        return _content(video, await asyncio.to_thread(parts.videos.content, video_id))

    return routes


def _answer(video: Video, response: Response) -> Video:
    if not video.status.final:
        response.headers["openai-poll-after-ms"] = _POLL_MS
    return video


def _content(video: Video, data: bytes) -> Response:
    headers = {"x-tav-model-version": video.model_version, "x-tav-video-id": video.id}
    return Response(data, media_type=_TYPES[video.format], headers=headers)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
