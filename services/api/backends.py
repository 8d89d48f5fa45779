"""What the gateway works with: the registry's stores, the scheduler, and the driver of videos."""

from __future__ import annotations

from dataclasses import dataclass

from registry.jobs import JobStore
from registry.metrics import MetricStore
from registry.objects import ObjectStore
from registry.versions import VersionStore
from registry.videos import VideoStore
from services.sampling.client import ServeSampler
from services.sampling.driver import VideoDriver
from services.settings import Settings
from services.tuning.client import SchedulerClient


@dataclass(frozen=True)
class Backends:
    """The backends of one gateway, and the settings that it runs with."""

    settings: Settings
    objects: ObjectStore
    jobs: JobStore
    metrics: MetricStore
    versions: VersionStore
    videos: VideoStore
    scheduler: SchedulerClient
    driver: VideoDriver

    @classmethod
    def create(cls, settings: Settings, scheduler: SchedulerClient, sampler: ServeSampler) -> Backends:
        """Create the stores and the driver; contact nothing yet."""
        objects = ObjectStore(settings)
        versions, videos = VersionStore(settings, objects), VideoStore(settings, objects)
        return cls(
            settings=settings,
            objects=objects,
            jobs=JobStore(settings, objects),
            metrics=MetricStore(settings),
            versions=versions,
            videos=videos,
            scheduler=scheduler,
            driver=VideoDriver(videos, versions, sampler, settings),
        )
