"""A job's log as a stream."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

from registry.errors import NotFound, StorageUnavailable
from registry.jobs import JobStore
from tav_client.schemas import TuningJob

log = logging.getLogger(__name__)

_PACE_SECONDS = 2.0


async def once(text: bytes) -> AsyncIterator[bytes]:
    """What there is."""
    yield text


async def tail(job: TuningJob, jobs: JobStore) -> AsyncIterator[bytes]:
    """What there is, and then what is added, until the job has ended."""
    sent, answered = 0, False
    while True:
        try:
            ended = (await asyncio.to_thread(jobs.get, job.id)).status.final  # asked first: nothing is added after the end
            text = await asyncio.to_thread(jobs.logs, job.id)
        except NotFound:
            return
        except StorageUnavailable as error:
            log.warning("The log of job %s cannot be read now: %s", job.id, error)
        else:
            if len(text) > sent or not answered:  # the answer's headers go with the first bytes, though there be none yet
                yield text[sent:]
                sent, answered = len(text), True
            if ended:
                return
        await asyncio.sleep(_PACE_SECONDS)
