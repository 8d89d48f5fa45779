"""`client.batches`: tuning jobs under one label, submitted from a manifest, counted and cancelled together."""

from __future__ import annotations

import os
from collections.abc import Iterator

from tav_client import _calls, schemas
from tav_client._manifest import Manifest
from tav_client._sync.jobs import Job, Jobs
from tav_client._sync.transport import Transport


class Batches:
    """Counts, cancels and submits batches. Their jobs: `jobs.list(batch=…)`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def get(self, id: str) -> schemas.Batch:
        """The batch's jobs, counted.

        Raises:
            NotFound: No job has this batch.
        """
        return self._transport.send(_calls.get_batch(id))

    def cancel(self, id: str) -> schemas.Batch:
        """Cancels every job of it that is open; running ones stop at their next step.

        Raises:
            NotFound: No job has this batch.
        """
        return self._transport.send(_calls.cancel_batch(id))

    def submit(self, manifest: Manifest | str | os.PathLike[str]) -> Iterator[Job]:
        """Submits every clip of a manifest, giving each job as it is kept.

        Submitting the same manifest again, after a break or by mistake, gives the same jobs and makes none twice.

        Args:
            manifest: A manifest or where it lies: a YAML file, or a folder of clips with a `.txt` each; see `Manifest`.

        Raises:
            InvalidRequest: The manifest is wrong; it names every clip at fault, and nothing was sent.
        """
        read = manifest if isinstance(manifest, Manifest) else Manifest.read(manifest)
        jobs = Jobs(self._transport)
        for entry in read.entries:
            call = _calls.create_job(entry.request, entry.clip, entry.key(read.batch))
            yield Job(jobs, self._transport.send(call))
