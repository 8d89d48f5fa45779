"""From a file to a stored clip that is known to decode and to fit the job. Everything here blocks."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from registry.objects import ObjectStore
from services.api.http.errors import invalid
from services.settings import Settings
from tav.bases import OFFLINE
from tav.config import ClipConfig
from tav.media.decoder import probe_isolated
from tav.media.timestamps import frame_indices
from tav.probe import ClipProbe
from tav_client.schemas import ClipInfo, TuningJobCreate, model_slug


def check_request(request: TuningJobCreate, settings: Settings) -> None:
    """What can be said about a job without its clip.

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
    if size := request.params.size:
        if any(n < 8 or n % 8 for n in size):
            raise invalid(f"size {size[0]}x{size[1]} will not do: width and height must be multiples of 8.", "params", "size")
        if size[0] * size[1] > settings.clip_limits.max_pixels:
            limit = settings.clip_limits.max_pixels
            raise invalid(f"size {size[0]}x{size[1]} has more than {limit} pixels: ask for less.", "params", "size")


def check(path: Path, request: TuningJobCreate, settings: Settings) -> ClipProbe:
    """Decode the clip in a process of its own, and see that it has the frames that the job asks for.

    Raises:
        InvalidClip: says what is wrong with it.
    """
    found = probe_isolated(path, settings.clip_limits)
    params = request.params
    wanted = params.num_frames or _default_frames(request.base or settings.base)
    frame_indices(found.num_frames, wanted, params.frame_start, params.frame_stride)
    return found


def store(path: Path, found: ClipProbe, objects: ObjectStore) -> ClipInfo:
    """Keep the clip under its content's digest."""
    stored = objects.put_clip(path)
    return ClipInfo(
        uri=stored.uri,
        sha256=stored.sha256,
        width=found.width,
        height=found.height,
        num_frames=found.num_frames,
        fps=found.fps,
        duration=found.duration,
        codec=found.codec,
        notes=found.notes,
    )


def digest(path: Path) -> str:
    """sha256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def model_name(request: TuningJobCreate, sha256: str) -> str:
    """The name asked for, or else one made from the caption; from the clip where no letter of it is in a name's alphabet."""
    if request.model:
        return request.model
    return model_slug(request.caption or "") or f"clip-{sha256[:12]}"


def _default_frames(base: str) -> int:
    """What a job that does not say takes. A hub base's own recommendation is not at hand here: the tuner checks again."""
    folder = OFFLINE if base == "offline" else Path(base)
    recommended = folder / "tav.json"
    clip = json.loads(recommended.read_text()).get("clip", {}) if recommended.is_file() else {}
    frames: int = ClipConfig.model_validate(clip).num_frames
    return frames
