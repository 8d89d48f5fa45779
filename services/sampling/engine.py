"""What a sampler computes with."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch

from registry.pictures import contact_sheet
from registry.versions import VersionStore
from services import metrics
from services.compute import default_precision, load_base, sampler_memory
from services.sampling.deltas import DeltaCache, Loaded
from services.sampling.estimates import refusal
from services.sampling.tiers import Budget
from services.settings import Settings
from tav import Sampler, compile_blocks, prompts
from tav.config import Progress, SampleConfig
from tav.errors import OutOfMemory, TavError
from tav.estimate import Profile, probes
from tav.estimate.measure import gpu
from tav.estimate.profile import of_configs
from tav.estimate.video import VideoWork
from tav.eval.scores import ScoreConfig, Scorer
from tav.tuning import is_out_of_memory
from tav.video import CONTENT_TYPES
from tav_client.schemas import VideoCreate

log = logging.getLogger(__name__)

Item = dict[str, Any]


class Engine:
    """A loaded base, its inflated network, and the deltas at hand."""

    def __init__(self, settings: Settings) -> None:
        self.name, self.settings = settings.base, settings
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

    @cached_property
    def profile(self) -> Profile:
        """What the base's network costs; of an architecture that no packaged profile describes it is counted, in seconds."""
        base = self.sampler.base
        unet, vae, text = (json.loads(part.to_json_string()) for part in (base.unet, base.vae, base.text_encoder.config))
        if (packaged := of_configs(unet, vae)) is not None:
            return packaged
        from tav.estimate.trace import profile_of

        log.info("the work of %s is counted: no packaged profile describes its architecture", self.name)
        return profile_of(self.name, unet, vae, text, kinds=("inference", "decoding"))

    def unread(self, request: VideoCreate) -> dict[str, str]:
        """What of the request's texts the base does not read.

        Raises:
            InvalidConfig: the request does not want them cut.
        """
        found = self.sampler.base.reader.unread_of({"prompt": request.prompt, "negative_prompt": request.negative_prompt})
        if request.truncate == "error" and (refused := prompts.refusal(found)):
            raise refused
        return found

    def check_cost(self, request: VideoCreate, config: SampleConfig, loaded: Loaded) -> None:
        """Refuse a video that there is no room or time for, before it takes what others on this machine need.

        Raises:
            OutOfMemory: with what it takes and what would fit.
            InvalidConfig: it would take too long, likewise.
        """
        base, settings, origin = self.sampler.base, self.settings, loaded.delta.meta.origin
        precision = default_precision(settings)
        if base.device.type == "cuda":
            device, whole = gpu(precision), torch.cuda.get_device_properties(base.device).total_memory
        else:
            device = probes.cpu(precision, settings.threads)
            whole = device.memory_bytes
        share = sampler_memory(settings, device.model_copy(update={"memory_bytes": whole}))
        device = device.model_copy(update={"memory_bytes": min(share, device.memory_bytes)})
        work = VideoWork.of(
            config,
            origin.num_frames,
            origin.size,
            request.use_inverted_latents,
            loaded.delta.meta.attention,
        )
        tier = self.deltas.device or self.deltas.host
        free = not request.use_inverted_latents
        refused = refusal(work, self.profile, precision, device, settings.max_video_seconds, free=free, beside=tier.nbytes)
        if refused is not None:
            raise refused

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
            OutOfMemory: on the device, or foreseen.
        """
        self.check_cost(request, config, loaded)
        latents = loaded.latents if request.use_inverted_latents else None
        began = time.perf_counter()
        try:
            video = self.sampler.sample(request.prompt, delta=loaded.delta, latents=latents, config=config, on_step=on_step)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            advice = "tune" if latents is not None else "ask"
            raise OutOfMemory(
                f"The video does not fit the device's memory: {advice} with fewer frames or a smaller size."
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
            "sheet": contact_sheet(video.frames) if request.record else None,
            "metrics": {"sampling_seconds": seconds, "steps": config.num_inference_steps, "frames": frames} | scores,
        }
