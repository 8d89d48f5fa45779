"""Manifests: many clips to tune with shared settings.

A YAML file:

    batch: davis              # left out, the file's name
    defaults:                 # fields of a tuning job and of its params, for every clip
      steps: 300
      size: [512, 512]
    clips:
      - clip: skiing.mp4      # beside the manifest, or s3://bucket/key
        caption: a man is skiing
        model: man-skiing
      - {clip: surfing.mp4, caption: a man is surfing, steps: 500}

Or a folder: every video in it is a clip, whose caption is the `.txt` of the same name.
"""

from __future__ import annotations

import hashlib
import os
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tav_client import schemas
from tav_client._calls import check_clip, request_of
from tav_client._errors import InvalidRequest

VIDEOS = frozenset({".mp4", ".mov", ".mkv", ".webm", ".avi", ".gif", ".m4v"})
_KEYS = uuid.UUID("5e0f2a3c-7a0e-4a57-9a3d-0b8f6c1d2e4f")


@dataclass(frozen=True)
class Entry:
    """One clip and what is asked for it."""

    request: schemas.TuningJobCreate
    clip: Path | None
    """A file to upload; None: the request has a `clip_uri`."""

    def key(self, batch: str) -> str:
        """An idempotency key: the same for the same clip and request in the same batch."""
        content = self.clip.read_bytes() if self.clip else b""
        digest = hashlib.sha256(content).hexdigest()
        return str(uuid.uuid5(_KEYS, f"{batch}\n{self.request.model_dump_json()}\n{digest}"))


@dataclass(frozen=True)
class Manifest:
    """Clips to be submitted as one batch."""

    batch: str
    entries: tuple[Entry, ...]

    @classmethod
    def read(
        cls, path: str | os.PathLike[str], *, batch: str | None = None, defaults: Mapping[str, Any] | None = None
    ) -> Manifest:
        """Reads a YAML file or a folder.

        Args:
            path: Of either.
            batch: Instead of the manifest's own.
            defaults: Over the manifest's defaults, under what a clip says itself.

        Raises:
            InvalidRequest: It names every clip at fault.
        """
        place = Path(path)
        content = _folder(place) if place.is_dir() else _yaml(place)
        unknown = set(content) - {"batch", "defaults", "clips"}
        if unknown:
            raise InvalidRequest(f"{place}: {', '.join(sorted(unknown))} is none of batch, defaults, clips.")
        clips = content.get("clips")
        if not isinstance(clips, list) or not clips:
            raise InvalidRequest(f"{place} has no clips: list them under `clips:`, each with clip and caption.")
        label = batch or content.get("batch") or re.sub(r"[^A-Za-z0-9._-]+", "-", place.stem).strip("-._")
        shared = dict(content.get("defaults") or {}) | {k: v for k, v in (defaults or {}).items() if v is not None}
        root = place if place.is_dir() else place.parent
        entries, faults = [], []
        for number, clip in enumerate(clips, 1):
            try:
                entries.append(_entry(root, str(label), shared, clip))
            except InvalidRequest as error:
                name = clip.get("clip", "") if isinstance(clip, dict) else ""
                faults.append(f"clip {number} {name}: {error}".replace(" :", ":"))
        if faults:
            raise InvalidRequest(f"{place}: " + " ".join(faults))
        return cls(str(label), tuple(entries))


def _entry(root: Path, batch: str, shared: Mapping[str, Any], clip: object) -> Entry:
    if not isinstance(clip, dict) or not isinstance(clip.get("clip"), str):
        raise InvalidRequest("give it as `clip: FILE` with a caption.")
    given = {**shared, **clip}
    source = given.pop("clip")
    params = dict(given.pop("params", None) or {})
    fields = {name: value for name, value in given.items() if name in schemas.TuningJobCreate.model_fields}
    params |= {name: value for name, value in given.items() if name not in fields}
    fields |= {"batch": batch} | ({"params": params} if params else {})
    if source.startswith("s3://"):
        return Entry(request_of(schemas.TuningJobCreate, fields | {"clip_uri": source}), None)
    path = root / source
    check_clip(path)
    return Entry(request_of(schemas.TuningJobCreate, fields), path)


def _folder(folder: Path) -> dict[str, Any]:
    clips: list[dict[str, Any]] = []
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() in VIDEOS:
            caption = file.with_suffix(".txt")
            clips.append({"clip": file.name} | ({"caption": caption.read_text().strip()} if caption.is_file() else {}))
    if not clips:
        raise InvalidRequest(f"{folder} has no videos: put clips there, each with its caption in a .txt of the same name.")
    return {"clips": clips}


def _yaml(file: Path) -> dict[str, Any]:
    import yaml  # a fifth of the client's import time, and only manifests need it

    if not file.is_file():
        raise InvalidRequest(f"There is no manifest {str(file)!r}: give a YAML file or a folder of clips.")
    try:
        content = yaml.safe_load(file.read_text())
    except yaml.YAMLError as error:
        raise InvalidRequest(f"{file} is not YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(content, dict):
        raise InvalidRequest(f"{file} is not a manifest: it needs a list under `clips:`.")
    return content
