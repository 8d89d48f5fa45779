"""Whom a log line is about: request, tuning job, video and tenant, as fields of every record.

Ray writes the records of all our processes as JSON, by `services.runtime`; what is known here travels with the work: from
the gateway to samplers as an argument, to scheduler and tuners in the job itself.
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
    """Let this process's records carry the fields, and our own INFO lines be heard."""
    for name in OURS:
        logging.getLogger(name).setLevel(logging.INFO)
    make = logging.getLogRecordFactory()
    if getattr(make, "about", False):
        return

    def record(*args: Any, **kwargs: Any) -> logging.LogRecord:
        made = make(*args, **kwargs)
        made.__dict__.update(_ids.get())
        return made

    record.about = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(record)


def ids() -> Mapping[str, str]:
    """What the lines of this task or thread carry now."""
    return _ids.get()


def know(**more: str | None) -> None:
    """Lines carry this too, until the surrounding `about` or the task ends."""
    unknown = more.keys() - set(FIELDS)
    assert not unknown, unknown
    _ids.set({**_ids.get(), **{name: value for name, value in more.items() if value is not None}})


@contextmanager
def about(**more: str | None) -> Iterator[None]:
    """Within the block, lines carry this too."""
    before = _ids.set(_ids.get())
    try:
        know(**more)
        yield
    finally:
        _ids.reset(before)


def about_job(job: TuningJob) -> dict[str, str | None]:
    """A job's fields, for `about` and `know`."""
    return {"request_id": job.request_id, "tenant": job.tenant, "tuning_job": job.id}


def about_video(video: Video) -> dict[str, str | None]:
    """A video's fields, likewise."""
    return {"request_id": video.request_id, "tenant": video.tenant, "video": video.id}
