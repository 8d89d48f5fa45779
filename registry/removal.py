"""Removal of jobs with everything made of them, on request or after their time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

from registry.errors import NotFound
from registry.jobs import JobStore
from registry.objects import ObjectStore
from registry.settings import RegistrySettings
from registry.tenants import TENANT
from registry.tracking import Runs, tag_equals
from registry.versions import VersionStore
from registry.videos import VideoStore
from tav.errors import TavError
from tav_client.schemas import TuningJob

log = logging.getLogger(__name__)


class Removal:
    """Removes what users can see first and the run last, so that a removal that fails can be repeated.

    Objects are gone when a call returns. MLflow keeps the rows of deleted runs and versions, which no call of its API reads,
    until an operator runs `mlflow gc`.
    """

    def __init__(self, settings: RegistrySettings, objects: ObjectStore) -> None:
        self._objects = objects
        self._jobs, self._versions = JobStore(settings, objects), VersionStore(settings, objects)
        self._videos, self._video_runs = VideoStore(settings, objects), Runs(settings, "video", "video")

    def job(self, job: TuningJob) -> None:
        """Remove a job that has ended: version, videos, checkpoint, artifacts and run; its clip if no other job has it.

        Raises:
            VersionInUse: an alias or a copy relies on its version; nothing was removed.
        """
        self._versions.delete_of_job(job)
        self._objects.delete_prefix(f"resume/{job.id}/")
        own = [tag_equals("mlflow.parentRunId", job.id), tag_equals(TENANT, job.tenant)]
        for run in list(self._video_runs.search(own)):  # another tenant's videos of a shared model stay
            self._videos.delete(run.info.run_id)
        try:
            self._jobs.delete(job.id)
        except NotFound:
            return  # another call was faster
        if not self._jobs.uses_clip(job.clip.sha256):
            self._objects.delete(job.clip.uri)

    def sweep(self, jobs_before: float | None, videos_before: float | None) -> int:
        """Remove jobs and videos that ended before a time; what cannot be removed now is left for the next call.

        A job stays while an alias points at its version, or a copy of it exists.

        Args:
            jobs_before: UNIX seconds; None: no jobs.
            videos_before: UNIX seconds; None: no videos.

        Returns:
            How many were removed.
        """
        removed = 0
        for job in [] if jobs_before is None else self._jobs.ended_before(jobs_before):
            if self._versions.relied_on(job) is None:
                removed += self._try(f"job {job.id}", lambda job=job: self.job(job))  # type: ignore[misc]
        for video in [] if videos_before is None else list(self._ended_videos(videos_before)):
            removed += self._try(f"video {video}", lambda video=video: self._videos.delete(video))  # type: ignore[misc]
        return removed

    def _ended_videos(self, before: float) -> Iterator[str]:
        ended = [f"attributes.end_time < {int(before * 1000)}", "attributes.end_time > 0"]
        for run in self._video_runs.search(ended):
            yield run.info.run_id

    @staticmethod
    def _try(what: str, remove: Callable[[], None]) -> int:
        try:
            remove()
        except TavError as error:
            log.warning("%s cannot be removed now: %s", what, error)
            return 0
        log.info("%s was kept long enough: removed", what)
        return 1
