"""What the routes work with, made once per gateway."""

from __future__ import annotations

from dataclasses import dataclass

from registry.jobs import JobStore
from registry.objects import ObjectStore
from registry.versions import VersionStore
from registry.videos import VideoStore
from services.sampling.client import Samples
from services.sampling.driver import VideoDriver
from services.settings import Settings
from services.tuning.client import SchedulerLink


@dataclass(frozen=True)
class Parts:
    """The registry's stores, the scheduler, and the driver of videos."""

    settings: Settings
    objects: ObjectStore
    jobs: JobStore
    versions: VersionStore
    videos: VideoStore
    scheduler: SchedulerLink
    driver: VideoDriver

    @classmethod
    def make(cls, settings: Settings, scheduler: SchedulerLink, sampler: Samples) -> Parts:
        """Nothing is contacted yet."""
        objects = ObjectStore(settings)
        versions, videos = VersionStore(settings, objects), VideoStore(settings, objects)
        return cls(
            settings=settings,
            objects=objects,
            jobs=JobStore(settings, objects),
            versions=versions,
            videos=videos,
            scheduler=scheduler,
            driver=VideoDriver(videos, versions, sampler, settings),
        )
