"""What a sampler computes with."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import torch

from registry.versions import VersionStore
from services import metrics
from services.compute import load_base
from services.sampling.deltas import DeltaCache, Loaded
from services.sampling.tiers import Budget
from services.settings import Settings
from tav import Sampler, compile_blocks
from tav.config import Progress, SampleConfig
from tav.errors import OutOfMemory, TavError
from tav.eval.scores import ScoreConfig, Scorer
from tav.video import CONTENT_TYPES
from tav_client.schemas import VideoCreate

log = logging.getLogger(__name__)

Item = dict[str, Any]


class Engine:
    """A loaded base, its inflated network, and the deltas at hand."""

    def __init__(self, settings: Settings) -> None:
        self.name = settings.base
        base = load_base(settings.base, settings)
        self.sampler = Sampler(base)
        if settings.compile:
            compile_blocks(self.sampler.net)
        self.scorer = Scorer(ScoreConfig(clip_model=settings.eval_clip_model), str(base.device))
        self.versions = VersionStore(settings)
        self.deltas = DeltaCache(
            self.versions,
            base,
            Budget.parse(settings.sampler_deltas),
            Budget.parse(settings.sampler_device_deltas),
            settings.work_dir,
            settings.sampler_pinned,
        )
        for ref in dict.fromkeys([*settings.sampler_pinned, *settings.sampler_preload]):
            self._preload(ref)

    def _preload(self, ref: str) -> None:
        try:
            version = self.versions.resolve(ref)
            if version.base_fingerprint == self.sampler.base.fingerprint:  # or else it is for another base's samplers
                self.deltas.preload(version)
        except TavError as error:
            log.warning("%s is not preloaded: %s", ref, error)

    def config(self, request: VideoCreate) -> SampleConfig:
        """A request's parameters over the base's recommended values.

        Raises:
            InvalidConfig: they contradict each other.
        """
        return self.sampler.base.sample_config(**request.model_dump(include=set(SampleConfig.model_fields)))

    def sample(self, request: VideoCreate, config: SampleConfig, loaded: Loaded, on_step: Callable[[Progress], None]) -> Item:
        """Sample, score and encode one video; blocks.

        Raises:
            OutOfMemory: on the device.
        """
        latents = loaded.latents if request.use_inverted_latents else None
        began = time.perf_counter()
        try:
            video = self.sampler.sample(request.prompt, delta=loaded.delta, latents=latents, config=config, on_step=on_step)
        except torch.OutOfMemoryError as error:
            raise OutOfMemory(
                "The video does not fit the device's memory: tune with fewer frames or a smaller size."
            ) from error
        seconds = time.perf_counter() - began
        metrics.SAMPLING_SECONDS.observe(seconds, {"base": self.name})
        metrics.gpu_memory("sampler")
        log.info("sampled %d steps in %.2f s", config.num_inference_steps, seconds)
        frames, height, width = video.frames.shape[:3]
        scores = self.scorer.score(video.frames, request.prompt) if request.record and frames > 1 else {}
        return {
            "video": video.encode(request.format),
            "content_type": CONTENT_TYPES[request.format],
            "seconds": frames / video.fps,
            "size": (width, height),
            "latents_sha256": video.latents_sha256,
            "metrics": {"sampling_seconds": seconds, "steps": config.num_inference_steps, "frames": frames} | scores,
        }
