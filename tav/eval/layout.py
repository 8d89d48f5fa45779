"""The LOVEU-TGVE 2023 layout: a folder of sources with a CSV of prompts, and videos as `<set>/<clip>/<edit>/00000.jpg`.

    <suite>/LOVEU-TGVE-2023_Dataset.csv        Video name, Our GT caption, Style Change Caption, Object Change Caption, …
    <suite>/<set>/480p_frames/<clip>/*.jpg     or <set>/480p_videos/<clip>.mp4, or either without the folder between

A suite of one's own needs no more than a CSV with these columns and the videos beside it.
"""

from __future__ import annotations

import csv
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from tav.clip import Clip
from tav.config import ClipConfig
from tav.errors import InvalidClip, InvalidConfig
from tav.eval.suite import Case, Suite, SuiteClip
from tav.media.timestamps import frame_indices
from tav.probe import ClipLimits, probe
from tav.vae import check_size
from tav.video import Frames
from tav.video import read_frames as video_frames

CSV = "LOVEU-TGVE-2023_Dataset.csv"
NAME, CAPTION, EDIT = "Video name", "Our GT caption", " Caption"
"""Columns; any other that ends in ` Caption` is an edit, named by its first word: `Style Change Caption` -> `style`."""
BETWEEN = ("480p_frames", "480p_videos")
"""Folders in which a set keeps its sources."""

_PICTURES = (".jpg", ".jpeg", ".png")
VIDEO_ENDINGS = (".mp4", ".mov", ".webm", ".mkv", ".avi", ".ts", ".mts", ".m2ts", ".gif", ".webp")
_QUALITY = 95
FRAMES_FPS = 8.0
"""A folder of frames has no rate of its own."""


def read_suite(
    folder: Path, seeds: Sequence[int] = (0,), options: Mapping[str, Any] | None = None, clips: Sequence[str] = ()
) -> Suite:
    """Read a suite from its folder.

    Args:
        folder: holds `CSV`, or one other CSV with its columns.
        seeds: every edit is made once for each.
        options: for every clip, over the base's `ClipConfig`.
        clips: only these, so that a part of a data set will do; none named: all.

    Raises:
        InvalidConfig: no CSV, missing columns, or a clip that is not there.
    """
    table = _csv_of(folder)
    with table.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    columns = list(rows[0]) if rows else []
    edits = [c for c in columns if c and c.endswith(EDIT)]
    if NAME not in columns or CAPTION not in columns or not edits:
        raise InvalidConfig(
            f"{table} lacks columns: it needs {NAME!r}, {CAPTION!r} and at least one like 'Style Change Caption'"
        )
    sources, cases = [], []
    for row in rows:
        name, caption = (row[NAME] or "").strip(), (row[CAPTION] or "").strip()
        if not caption or (clips and name not in clips):  # without: a heading such as 'DAVIS Videos:', or an empty line
            continue
        path = _source_of(folder, name)
        collection = next((part for part in path.relative_to(folder).parts[:-1] if part not in BETWEEN), "")
        sources.append(SuiteClip(name, path, caption, dict(options or {}), collection))
        for column in edits:
            if prompt := (row[column] or "").strip():
                edit = column.split()[0].lower()
                cases += [Case(name, edit, edit, prompt, seed) for seed in seeds]
    return Suite(folder.resolve().name, sources, cases).only(clips)


def _csv_of(folder: Path) -> Path:
    if (folder / CSV).is_file():
        return folder / CSV
    tables = sorted(folder.glob("*.csv"))
    if len(tables) != 1:
        raise InvalidConfig(f"{folder} is no suite: it needs {CSV}, or one CSV with its columns (it has {len(tables)})")
    return tables[0]


def _source_of(folder: Path, name: str) -> Path:
    if not name or "/" in name or name.startswith("."):
        raise InvalidConfig(f"{name!r} will not do as a clip's name in {folder}")
    collections = [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]
    places = [collection / between for collection in collections for between in (*BETWEEN, "")]
    for place in places:
        if (place / name).is_dir():
            return place / name
        for ending in VIDEO_ENDINGS:
            if (place / f"{name}{ending}").is_file():
                return place / f"{name}{ending}"
    raise InvalidConfig(
        f"{folder} has no clip {name}: put its frames into <set>/480p_frames/{name}/, or {name}.mp4 beside the CSV, or name "
        "the clips that there are"
    )


def read_clip(clip: SuiteClip, config: ClipConfig) -> Clip:
    """Read a suite's clip as the method takes it.

    Args:
        clip: the source; its options win over `config`.
        config: frames and size.

    Raises:
        InvalidClip: unreadable, or too few frames.
        InvalidConfig: a size that is no pair of multiples of 8.
    """
    c = ClipConfig.model_validate(config.model_dump() | dict(clip.options))
    if not clip.path.is_dir():
        return Clip.read(clip.path, clip.caption, c.num_frames, c.size, c.start, c.stride)
    check_size(*c.size)
    return Clip(read_frames(clip.path, c.num_frames, c.size, c.start, c.stride), FRAMES_FPS, clip.caption)


def read_source(path: Path, num_frames: int, size: tuple[int, int], options: Mapping[str, Any]) -> Frames:
    """Read the frames of a clip that a video of so many frames and of that size was made from.

    Args:
        path: a video file, or a folder of frames.
        num_frames: of the video.
        size: `(width, height)` of the video, whatever it is.
        options: `start` and `stride`, where the video was not made from frames spread evenly.
    """
    start, stride = options.get("start", 0), options.get("stride")
    if path.is_dir():
        return read_frames(path, num_frames, size, start, stride)
    return video_frames(path, num_frames, size, start, stride)[0]


def read_frames(
    folder: Path,
    num_frames: int | None = None,
    size: tuple[int, int] | None = None,
    start: int = 0,
    stride: int | None = None,
) -> Frames:
    """Read a folder of pictures, in the order of their names, as frames uint8 `[F, H, W, 3]`.

    Args:
        folder: of jpg or png files.
        num_frames: None: all, as they are.
        size: `(width, height)` to cover and crop to at the centre; None: the pictures' own.
        start: first picture.
        stride: None spreads the frames evenly.

    Raises:
        InvalidClip: no pictures, too few, or of different sizes.
    """
    files = pictures_in(folder)
    if not files:
        raise InvalidClip(f"{folder} holds no frames: expected 00000.jpg, 00001.jpg, …")
    if num_frames is not None:
        files = [files[i] for i in frame_indices(len(files), num_frames, start, stride)]
    frames = []
    for file in files:
        with Image.open(file) as opened:
            picture = opened.convert("RGB")
        if size is not None and picture.size != size:
            picture = ImageOps.fit(picture, size, Image.Resampling.BICUBIC)
        frames.append(np.asarray(picture))
    if len({frame.shape for frame in frames}) > 1:
        raise InvalidClip(f"the frames in {folder} have different sizes: export them again")
    return np.stack(frames)


def read_video(path: Path) -> Frames:
    """Read all frames of a video file, or of a folder of pictures, at their own size."""
    if path.is_dir():
        return read_frames(path)
    if not path.exists():
        raise InvalidClip(f"there is no {path}")
    held = probe(path, ClipLimits(max_seconds=3600))
    return video_frames(path, held.num_frames, (held.width, held.height))[0]


def pictures_in(folder: Path) -> list[Path]:
    """List a folder's pictures in the order of their names."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in _PICTURES)


def video_folder(root: Path, suite: Suite, case: Case) -> Path:
    """Return where a case's frames lie under a root in the layout."""
    return root / suite.set_of(case.clip) / case.clip / case.edit


def write_frames(folder: Path, frames: Frames) -> None:
    """Write frames uint8 `[F, H, W, 3]` as `00000.jpg`, …: the whole folder or nothing of it."""
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for i, frame in enumerate(frames):
        Image.fromarray(frame).save(part / f"{i:05d}.jpg", quality=_QUALITY, subsampling=0)
    part.rename(folder)
