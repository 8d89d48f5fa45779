"""`client.batches`: tuning jobs under one label, submitted from a manifest, counted and cancelled together."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

from tav_client import _calls, schemas
from tav_client._async.jobs import AsyncJob, AsyncJobs
from tav_client._async.transport import AsyncTransport
from tav_client._errors import APIStatusError, ClipsRefused, InvalidRequest, RefusedClip
from tav_client._files import sentence
from tav_client._manifest import Manifest


class AsyncBatches:
    """Counts, cancels and submits batches. Their jobs: `jobs.list(batch=…)`."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def get(self, id: str) -> schemas.Batch:
        """Return the batch with its jobs counted.

        Raises:
            NotFound: no job has this batch.
        """
        return await self._transport.send(_calls.get_batch(id))

    async def cancel(self, id: str) -> schemas.Batch:
        """Cancel every job of it that is open; running ones stop at their next step.

        Raises:
            NotFound: no job has this batch.
        """
        return await self._transport.send(_calls.cancel_batch(id))

    async def submit(self, manifest: Manifest | str | os.PathLike[str]) -> AsyncIterator[AsyncJob]:
        """Submit every clip of a manifest, yielding each job as it is accepted.

        A clip that cannot be submitted, or that the service refuses, keeps none of the others back: it is named at the end.
        Submitting the same manifest again, after a break or by mistake, gives the same jobs and makes none twice.

        Args:
            manifest: A manifest or where it lies: a YAML file, or a folder of clips with a `.txt` each; see `Manifest`.

        Raises:
            InvalidRequest: it is no manifest, or has no clip that could be submitted; nothing was sent.
            ClipsRefused: last of all, where clips were left out.
            APIStatusError: the service takes no job now, whichever clip it is of.
        """
        read = manifest if isinstance(manifest, Manifest) else Manifest.read(manifest)
        jobs = AsyncJobs(self._transport)
        refused = list(read.refused)
        for entry in read.entries:
            try:
                snapshot = await self._transport.send(_calls.create_job(entry.request, entry.clip, entry.key(read.batch)))
            except (InvalidRequest, OSError) as error:  # the file is gone since, or may not be read
                reason = sentence(error) if isinstance(error, OSError) else str(error)
                refused.append(RefusedClip(entry.number, entry.name, reason))
            except APIStatusError as problem:
                if not _calls.is_about_the_clip(problem):
                    raise
                refused.append(RefusedClip(entry.number, entry.name, str(problem)))
            else:
                yield AsyncJob(jobs, snapshot)
        if refused:
            total = len(read.entries) + len(read.refused)
            raise ClipsRefused(read.batch, total, sorted(refused, key=lambda clip: clip.number))
