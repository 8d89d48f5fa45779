"""What a log line is about: request, tuning job, video and tenant, as fields of every record.

Ray writes the records of all our processes as JSON, as `services.runtime` sets it. The fields travel with the work: from the
gateway to samplers as an argument, to scheduler and tuners in the job itself.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from tav_client.schemas import TuningJob, Video

OURS = ("services", "registry", "tav")
"""Packages whose INFO lines are kept."""

FIELDS = ("request_id", "tenant", "tuning_job", "video")

_ids: ContextVar[Mapping[str, str]] = ContextVar("tav_log_ids", default={})  # noqa: B039 - never changed in place


def start() -> None:
    """Add the fields to this process's records, and log our own INFO lines."""
    for name in OURS:
        logging.getLogger(name).setLevel(logging.INFO)
    make = logging.getLogRecordFactory()
    if getattr(make, "about", False):
        return

    def make_with_fields(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        record.__dict__.update(_ids.get())
        return record

    make_with_fields.about = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(make_with_fields)


def ids() -> Mapping[str, str]:
    """Return the fields that the lines of this task or thread carry now."""
    return _ids.get()


def know(**more: str | None) -> None:
    """Add fields to the lines that follow, until the surrounding `about` or the task ends."""
    unknown = more.keys() - set(FIELDS)
    assert not unknown, unknown
    _ids.set({**_ids.get(), **{name: value for name, value in more.items() if value is not None}})


@contextmanager
def about(**more: str | None) -> Iterator[None]:
    """Add fields to the lines within the block."""
    before = _ids.set(_ids.get())
    try:
        know(**more)
        yield
    finally:
        _ids.reset(before)


def about_job(job: TuningJob) -> dict[str, str | None]:
    """Return a job's fields, for `about` and `know`."""
    return {"request_id": job.request_id, "tenant": job.tenant, "tuning_job": job.id}


def about_video(video: Video) -> dict[str, str | None]:
    """Return a video's fields, for `about` and `know`."""
    return {"request_id": video.request_id, "tenant": video.tenant, "video": video.id}
