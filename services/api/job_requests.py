"""The request for a tuning job: reading its body, and all that can be checked without its clip."""

from __future__ import annotations

from pathlib import Path

from fastapi import Request

from services.api.http.bodies import media_type, read_json, read_upload, unsupported_job_body
from services.api.http.errors import invalid
from services.settings import Settings
from tav import vae
from tav.errors import InvalidConfig
from tav_client.schemas import TuningJobCreate, model_slug


async def read_job_request(request: Request, folder: Path, settings: Settings) -> tuple[TuningJobCreate, Path | None]:
    """Read the body: JSON that names a clip, or multipart/form-data with the clip, which is written to `folder`.

    Returns:
        The job's request, and the uploaded clip's file.

    Raises:
        ApiError: 413 the clip is too large, 415 another type of body, 422 not a job's request, or not one clip.
    """
    path: Path | None = None
    kind = media_type(request)
    if kind == "application/json":
        job_request = await read_json(request, TuningJobCreate)
    elif kind == "multipart/form-data":
        job_request, path = await read_upload(request, TuningJobCreate, folder, settings.clip_limits.max_bytes)
    else:
        raise unsupported_job_body()
    if path is None and job_request.clip_uri is None:
        raise invalid("There is no clip: upload it as the part 'clip', or name it with clip_uri.", "clip", kind="missing")
    if path is not None and job_request.clip_uri is not None:
        raise invalid("There are two clips: upload one as the part 'clip', or name one with clip_uri.", "clip_uri")
    return job_request, path


def check_job_request(request: TuningJobCreate, settings: Settings, max_priority: int) -> None:
    """Check a job's request against what the service offers.

    Args:
        request: the job's.
        settings: bases, GPUs and limits of the service.
        max_priority: of this caller's jobs.

    Raises:
        ApiError: 422 `invalid_request`.
    """
    if request.base not in (None, *settings.served_bases):
        served = " and ".join(repr(base) for base in settings.served_bases)
        raise invalid(f"This service tunes on {served}: name one of these, or leave base out for {settings.base!r}.", "base")
    if request.caption is None and settings.captioner is None:
        raise invalid("The clip has no caption: say what it shows, e.g. 'a man is skiing'.", "caption", kind="missing")
    if (request.gpus or 1) > settings.max_gpus_per_job:
        raise invalid(f"A job may ask for {settings.max_gpus_per_job} GPUs at most: ask for fewer.", "gpus")
    if request.gpu_type is not None and request.gpu_type not in settings.gpu_types:
        known = ", ".join(settings.gpu_types) or "none to choose from"
        raise invalid(f"This service has no GPU type {request.gpu_type!r}; it has {known}: leave gpu_type out.", "gpu_type")
    check_size(request.params.size)
    if (size := request.params.size) and size[0] * size[1] > (limit := settings.clip_limits.max_pixels):
        raise invalid(f"size {size[0]}x{size[1]} has more than {limit} pixels: ask for less.", "params", "size")
    if request.priority > max_priority:
        raise invalid(f"Your jobs may have a priority of {max_priority} at most: ask for less.", "priority")


def check_size(size: tuple[int, int] | None) -> None:
    """Refuse a size that latents cannot hold, the same in a job as in an estimate.

    Args:
        size: width and height in pixels; None: the base's own.

    Raises:
        ApiError: 422 `invalid_request`.
    """
    if size:
        try:
            vae.check_size(*size)
        except InvalidConfig as error:
            raise invalid(f"{error}.", "params", "size") from None


def same_request(first: TuningJobCreate, second: TuningJobCreate) -> bool:
    """Return whether two requests ask for the same job, however they name clip and model."""
    names = {"clip_uri", "model"}
    return first.model_dump(exclude=names) == second.model_dump(exclude=names)


def model_name(request: TuningJobCreate, sha256: str) -> str:
    """Return the requested name, or one from the caption; from the clip's digest where the caption has no usable letter."""
    return request.model or model_slug(request.caption or "") or f"clip-{sha256[:12]}"
