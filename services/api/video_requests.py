"""The request for a video: reading its body, and checking it against the version that it names."""

from __future__ import annotations

import asyncio

from fastapi import Request

from services.api.catalog import Catalog
from services.api.http.bodies import read_fields
from services.api.http.errors import invalid
from services.api.unread_texts import unread_in_video
from services.sampling.estimates import foreseen_refusal
from services.settings import Settings
from tav_client.schemas import ModelVersion, VideoCreate

_MIN_FPS, _MAX_FPS = 0.01, 120.0


async def read_video_request(
    request: Request, catalog: Catalog, settings: Settings
) -> tuple[VideoCreate, ModelVersion, dict[str, str]]:
    """Read and check the body.

    Returns:
        The video's request as samplers take it, the version that it names now, and the unread ends of its texts by field,
        where the base's tokenizer is on this machine.

    Raises:
        ApiError: 415 another type of body, 422 it is not a video's request, or no sampler can fulfil it.
        NotFound: there is no such version that the caller may see.
    """
    video_request = await read_fields(request, VideoCreate)
    version = await asyncio.to_thread(catalog.resolve, video_request.model)
    video_request = fit_request(video_request, version, settings.clip_limits.max_pixels)
    if error := await asyncio.to_thread(foreseen_refusal, video_request, version, settings):
        raise invalid(f"{error}.", "model" if video_request.use_inverted_latents else "size")
    return video_request, version, await asyncio.to_thread(unread_in_video, video_request, version)


def fit_request(request: VideoCreate, version: ModelVersion, max_pixels: int) -> VideoCreate:
    """Return the request with `seconds` as a frame rate.

    Args:
        request: the video's.
        version: its frames and size bound what the inverted latents can give.
        max_pixels: of a frame.

    Raises:
        ApiError: 422, the version cannot give what the request asks for.
    """
    if request.use_inverted_latents and request.num_frames not in (None, version.num_frames):
        raise invalid(
            f"The inverted latents hold {version.num_frames} frames: leave num_frames out, or use_inverted_latents false.",
            "num_frames",
        )
    if request.use_inverted_latents and request.size not in (None, version.size):
        size = f"{version.size[0]}x{version.size[1]}"
        raise invalid(
            f"The inverted latents are of {size}: leave size out, or use_inverted_latents false, or tune at that size.",
            "size",
        )
    if request.size is not None and request.size[0] * request.size[1] > max_pixels:
        raise invalid(f"A frame may have {max_pixels} pixels at most: ask for less.", "size")
    if request.seconds is None:
        return request
    if request.fps is not None:
        raise invalid("fps and seconds both set the rate: give one of them.", "seconds")
    frames = request.num_frames or version.num_frames
    fps = frames / request.seconds
    if fps > _MAX_FPS:
        raise invalid(f"{frames} frames in {request.seconds:g} s are more than {_MAX_FPS:g} a second: ask for more.", "seconds")
    if fps < _MIN_FPS:
        raise invalid(
            f"{frames} frames in {request.seconds:g} s are less than one in {1 / _MIN_FPS:g} s: ask for less.", "seconds"
        )
    return request.model_copy(update={"fps": fps, "seconds": None})
