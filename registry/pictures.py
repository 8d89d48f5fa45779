"""Contact sheets of videos, stored where MLflow's comparison of runs looks for pictures.

MLflow's pages play the videos of one run only; side by side they show what `MlflowClient.log_image` logs, recognised by the
names of artifacts and a tag. That call uploads with credentials of its own, so the same names are built here.
"""

from __future__ import annotations

import io
import re
import uuid
from typing import Any

import numpy as np
from mlflow.entities import Run
from mlflow.tracking.multimedia import compress_image_size
from mlflow.utils.mlflow_tags import MLFLOW_LOGGED_IMAGES
from PIL import Image

LOGGED = {MLFLOW_LOGGED_IMAGES: "True"}
"""Tag of a run that has such pictures."""

_FRAMES = 8
_COLUMNS = 4
_SIDE = 256


def contact_sheet(frames: np.ndarray[Any, Any]) -> bytes:
    """Return up to eight frames, evenly spaced, four in a row, as a PNG.

    Args:
        frames: uint8 `[F, H, W, 3]`, F ≥ 1.
    """
    shown = frames[np.linspace(0, len(frames) - 1, min(_FRAMES, len(frames))).round().astype(int)]
    pictures = [Image.fromarray(frame) for frame in shown]
    for picture in pictures:
        picture.thumbnail((_SIDE, _SIDE))
    width, height = pictures[0].size
    rows = -(-len(pictures) // _COLUMNS)
    sheet = Image.new("RGB", (min(len(pictures), _COLUMNS) * width, rows * height))
    for index, picture in enumerate(pictures):
        row, column = divmod(index, _COLUMNS)
        sheet.paste(picture, (column * width, row * height))
    return _encode(sheet, "PNG")


def artifacts(run: Run, key: str, sheet: bytes) -> dict[str, bytes]:
    """Return a sheet as artifacts of a run, by name: the picture, and the small one that MLflow shows first.

    The same run and key give the same names.

    Args:
        run: the job's or video's.
        key: by which runs are compared: letters, digits, spaces, `.`, `_` and `-`.
        sheet: a PNG.
    """
    if not re.fullmatch(r"[A-Za-z0-9 ._-]+", key):
        raise ValueError(f"{key!r} cannot be a picture's key.")
    number = uuid.uuid5(uuid.NAMESPACE_OID, f"{run.info.run_id}/{key}")
    name = f"images/{key}+step+0+timestamp+{run.info.start_time}+{number}"
    small = compress_image_size(Image.open(io.BytesIO(sheet)))
    return {f"{name}.png": sheet, f"{name}+compressed.webp": _encode(small, "WEBP")}


def _encode(picture: Image.Image, form: str) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form)
    return buffer.getvalue()
