"""A job's log as a stream of bytes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

from registry.errors import NotFound, StorageUnavailable
from registry.jobs import JobStore
from tav_client.schemas import TuningJob

log = logging.getLogger(__name__)

_PERIOD_SECONDS = 2.0


async def whole(text: bytes) -> AsyncIterator[bytes]:
    """Yield the log as it is."""
    yield text


async def tail(job: TuningJob, jobs: JobStore) -> AsyncIterator[bytes]:
    """Yield the log, and then what is added to it, until the job has ended."""
    position, started = 0, False
    while True:
        try:
            # The status first: nothing is added to the log after the end.
            ended = (await asyncio.to_thread(jobs.get, job.id)).status.final
            text = await asyncio.to_thread(jobs.logs, job.id)
        except NotFound:
            return
        except StorageUnavailable as error:
            log.warning("the log of job %s cannot be read now: %s", job.id, error)
        else:
            if len(text) > position or not started:  # the response's headers go with the first chunk, even an empty one
                yield text[position:]
                position, started = len(text), True
            if ended:
                return
        await asyncio.sleep(_PERIOD_SECONDS)
