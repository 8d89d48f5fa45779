"""Lists and estimates as tables in a notebook."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tav_client import _estimates, _notebook, schemas
from tav_client._progress import read_job, read_video
from tav_client._texts import when

_COLUMNS = {
    "tuning_job": ("job", "status", "model", "created", "caption"),
    "video": ("video", "status", "model", "created", "prompt"),
    "model": ("model", "latest version", "aliases", "updated"),
    "model_version": ("version", "aliases", "frames", "created", "job", "caption"),
}


def entries(values: Sequence[Any], *, more: bool) -> str:
    """List jobs, videos, models or versions, as handles or as the service answered them.

    Args:
        values: all of one kind.
        more: there are others, which are not shown.
    """
    if not values:
        return "<i>There are none.</i>"
    records = [getattr(value, "snapshot", value) for value in values]
    columns = _COLUMNS.get(getattr(records[0], "object", ""))
    if columns is None:
        return "".join(map(_notebook.record, records))
    below = "There are more: iterate over the list to get them." if more else ""
    return _notebook.table(columns, [_row(record) for record in records], below)


def estimates(result: schemas.Estimates) -> str:
    """Make one row for each memory setting."""
    return _notebook.table([name.lower() for name in _estimates.COLUMNS], _estimates.rows(result), _estimates.title(result))


def _row(record: Any) -> Sequence[object]:
    if isinstance(record, schemas.TuningJob):
        ref = record.model if record.version is None else f"{record.model}/{record.version}"
        job = read_job(record)
        return record.id, _notebook.bar(job.fraction, job.line()), ref, when(record.created_at), record.caption
    if isinstance(record, schemas.Video):
        video = read_video(record)
        status = _notebook.bar(video.fraction, f"{video.fraction:.0%} {video.stage}")
        return record.id, status, record.model_version, when(record.created_at), record.prompt
    if isinstance(record, schemas.Model):
        return record.name, record.latest_version, record.aliases, when(record.updated_at)
    width, height = record.size
    frames = f"{record.num_frames} of {width}x{height}"
    return f"{record.name}/{record.version}", record.aliases, frames, when(record.created_at), record.job_id, record.caption
