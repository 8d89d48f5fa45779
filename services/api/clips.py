"""An uploaded clip: decoding it, and storing it by its content. Everything here blocks."""

from __future__ import annotations

import hashlib
from pathlib import Path

from registry.objects import ObjectStore
from services.settings import Settings
from tav.bases import recommended
from tav.config import ClipConfig
from tav.media.decoder import probe_isolated
from tav.media.timestamps import frame_indices
from tav.probe import ClipProbe
from tav_client.schemas import ClipInfo, TuningJobCreate


def inspect(path: Path, request: TuningJobCreate, settings: Settings) -> ClipProbe:
    """Decode the clip in a process of its own, and check that it has the frames that the job asks for.

    Raises:
        InvalidClip: says what is wrong with it.
    """
    probe = probe_isolated(path, settings.clip_limits)
    params = request.params
    num_frames = params.num_frames or _default_frames(request.base or settings.base)
    frame_indices(probe.num_frames, num_frames, params.frame_start, params.frame_stride)
    return probe


def store(path: Path, probe: ClipProbe, objects: ObjectStore) -> ClipInfo:
    """Store the clip under its content's digest.

    Raises:
        StorageUnavailable: S3 does not answer.
    """
    stored = objects.put_clip(path)
    return ClipInfo(
        uri=stored.uri,
        sha256=stored.sha256,
        width=probe.width,
        height=probe.height,
        num_frames=probe.num_frames,
        fps=probe.fps,
        duration=probe.duration,
        codec=probe.codec,
        notes=probe.notes,
    )


def digest(path: Path) -> str:
    """Return a file's sha256 in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _default_frames(base: str) -> int:
    """Return how many frames a job takes that does not say. A hub base's recommendation is not here: the tuner checks again."""
    return ClipConfig.model_validate(recommended(base).get("clip", {})).num_frames
