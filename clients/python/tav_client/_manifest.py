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

Or a folder: every video in it is a clip, whose caption is the `.txt` of the same name. Names that begin with a dot are left
out. Text is UTF-8, or UTF-16 with a byte order mark; a caption's lines are joined.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tav_client import schemas
from tav_client._calls import check_clip, request_of
from tav_client._errors import InvalidRequest, RefusedClip
from tav_client._texts import read_text

VIDEOS = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mts", ".m2ts", ".ts", ".gif", ".webp"})
_KEYS = uuid.UUID("5e0f2a3c-7a0e-4a57-9a3d-0b8f6c1d2e4f")


@dataclass(frozen=True)
class Entry:
    """One clip and what is asked for it."""

    number: int
    """Which of the manifest's clips, from 1."""
    request: schemas.TuningJobCreate
    clip: Path | None
    """A file to upload; None: the request has a `clip_uri`."""

    @property
    def name(self) -> str:
        """As the manifest names the clip."""
        return self.request.clip_uri or "" if self.clip is None else self.clip.name

    def key(self, batch: str) -> str:
        """Return an idempotency key: the same for the same clip and request in the same batch."""
        if self.clip is None:
            digest = hashlib.sha256().hexdigest()
        else:
            with self.clip.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        return str(uuid.uuid5(_KEYS, f"{batch}\n{self.request.model_dump_json()}\n{digest}"))


@dataclass(frozen=True)
class Manifest:
    """Clips to be submitted as one batch."""

    batch: str
    entries: tuple[Entry, ...]
    refused: tuple[RefusedClip, ...] = ()
    """Clips that cannot be submitted, each with the reason."""

    @classmethod
    def read(
        cls, path: str | os.PathLike[str], *, batch: str | None = None, defaults: Mapping[str, Any] | None = None
    ) -> Manifest:
        """Read a YAML file or a folder.

        Args:
            path: of either.
            batch: instead of the manifest's own.
            defaults: over the manifest's defaults, under what a clip says itself.

        Raises:
            InvalidRequest: it is no manifest, or no clip of it can be submitted; then it names them all.
        """
        place = Path(path)
        content = _folder(place) if place.is_dir() else _yaml(place)
        unknown = {str(name) for name in content} - {"batch", "defaults", "clips"}
        if unknown:
            raise InvalidRequest(f"{place}: {', '.join(sorted(unknown))} is none of batch, defaults, clips.")
        clips = content.get("clips")
        if not isinstance(clips, list) or not clips:
            raise InvalidRequest(f"{place} has no clips: list them under `clips:`, each with clip and caption.")
        label = batch or content.get("batch") or re.sub(r"[^A-Za-z0-9._-]+", "-", place.stem).strip("-._")
        shared = _mapping("defaults", content.get("defaults")) | {k: v for k, v in (defaults or {}).items() if v is not None}
        root = place if place.is_dir() else place.parent
        entries, refused = [], []
        for number, clip in enumerate(clips, 1):
            try:
                entries.append(_entry(number, root, str(label), shared, clip))
            except InvalidRequest as error:
                name = clip.get("clip", "") if isinstance(clip, dict) else ""
                refused.append(RefusedClip(number, str(name), str(error)))
        if not entries:
            raise InvalidRequest(f"{place}: " + " ".join(map(str, refused)))
        return cls(str(label), tuple(entries), tuple(refused))


def _entry(number: int, root: Path, batch: str, shared: Mapping[str, Any], clip: object) -> Entry:
    if not isinstance(clip, dict) or not isinstance(clip.get("clip"), str):
        raise InvalidRequest("give it as `clip: FILE` with a caption.")
    settings = {**shared, **clip}
    source = settings.pop("clip")
    params = _mapping("params", settings.pop("params", None))
    fields = {name: value for name, value in settings.items() if name in schemas.TuningJobCreate.model_fields}
    params |= {name: value for name, value in settings.items() if name not in fields}
    fields |= {"batch": batch} | ({"params": params} if params else {})
    if isinstance(caption := fields.get("caption"), InvalidRequest):
        raise caption
    if isinstance(caption, str):
        fields["caption"] = " ".join(caption.split())
    if source.startswith("s3://"):
        return Entry(number, request_of(schemas.TuningJobCreate, fields | {"clip_uri": source}), None)
    path = root / source
    check_clip(path)
    return Entry(number, request_of(schemas.TuningJobCreate, fields), path)


def _mapping(name: str, value: object) -> dict[str, Any]:
    if value is not None and not isinstance(value, Mapping):
        raise InvalidRequest(f"{name} is not `name: value` pairs: {value!r}.")
    return {str(key): each for key, each in (value or {}).items()}


def _folder(folder: Path) -> dict[str, Any]:
    files = sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))
    texts = {_stem(file): file for file in reversed(files) if file.suffix.lower() == ".txt"}
    clips = list(_clips(files, texts))
    if not clips:
        raise InvalidRequest(f"{folder} has no videos: put clips there, each with its caption in a .txt of the same name.")
    return {"clips": clips}


def _clips(files: list[Path], texts: Mapping[str, Path]) -> Iterator[dict[str, Any]]:
    """Each video with its caption, or with the error that reading it was."""
    for file in files:
        if file.suffix.lower() not in VIDEOS:
            continue
        fields: dict[str, Any] = {"clip": file.name}
        if text := texts.get(_stem(file)):
            try:
                fields["caption"] = _caption(text)
            except InvalidRequest as error:
                fields["caption"] = error
        yield fields


def _caption(file: Path) -> str:
    text = read_text(file)
    if not text.strip():
        raise InvalidRequest(f"{file} is empty: write there what the clip shows.")
    return text


def _stem(file: Path) -> str:
    """macOS writes an umlaut in a name as two characters, others as one."""
    return unicodedata.normalize("NFC", file.stem)


def _yaml(file: Path) -> dict[str, Any]:
    import yaml  # a fifth of the client's import time, and only manifests need it

    if not file.is_file():
        raise InvalidRequest(f"There is no manifest {str(file)!r}: give a YAML file or a folder of clips.")
    try:
        content = yaml.safe_load(read_text(file))
    except yaml.YAMLError as error:
        raise InvalidRequest(f"{file} is not YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(content, dict):
        raise InvalidRequest(f"{file} is not a manifest: it needs a list under `clips:`.")
    return content
