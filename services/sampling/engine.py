"""What a sampler computes with: a base, its inflated network, and the deltas at hand."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from functools import cached_property

import torch

from registry.pictures import contact_sheet
from registry.versions import VersionStore
from services import metrics
from services.compute import default_precision, load_base, sampler_memory
from services.sampling.deltas import DeltaCache, LoadedVersion
from services.sampling.estimates import refusal
from services.sampling.messages import SampledVideo
from services.sampling.tiers import Budget
from services.settings import Settings
from tav import Sampler, compile_blocks, prompts
from tav.bases.names import is_same_base
from tav.config import Progress, SampleConfig
from tav.errors import OutOfMemory, TavError
from tav.estimate import Profile, probes
from tav.estimate.measure import gpu
from tav.estimate.profile import of_configs
from tav.estimate.video import VideoWork
from tav.eval.scores import ScoreConfig, Scorer
from tav.tuning import is_out_of_memory
from tav_client.schemas import VideoCreate

log = logging.getLogger(__name__)


class Engine:
    """Samples, scores and encodes videos on one base. Methods block.

    Args:
        settings: the service's; `base` is the base to load.

    Raises:
        BaseUnavailable: no such base.
    """

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

    def config(self, request: VideoCreate) -> SampleConfig:
        """Return a request's parameters over the base's recommended values.

        Raises:
            InvalidConfig: they contradict each other.
        """
        return self.sampler.base.sample_config(**request.model_dump(include=set(SampleConfig.model_fields)))

    def unread(self, request: VideoCreate) -> dict[str, str]:
        """Return the ends of the request's texts that the base does not read, by field.

        Raises:
            InvalidConfig: the request does not let them be cut.
        """
        unread = self.sampler.base.reader.unread_of({"prompt": request.prompt, "negative_prompt": request.negative_prompt})
        if request.truncate == "error" and (error := prompts.refusal(unread)):
            raise error
        return unread

    def sample(
        self, request: VideoCreate, config: SampleConfig, loaded: LoadedVersion, on_step: Callable[[Progress], None]
    ) -> SampledVideo:
        """Sample, score and encode one video.

        Args:
            request: the video.
            config: see `config`.
            loaded: its version.
            on_step: called after every step; what it raises stops the sampling.

        Raises:
            OutOfMemory: on the device, or foreseen.
            InvalidConfig: it is foreseen to take too long, or asks for what the latents do not have.
            NanLoss: the arithmetic overflowed.
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
        return SampledVideo(
            content=video.encode(request.format),
            seconds=frames / video.fps,
            size=(width, height),
            latents_sha256=video.latents_sha256,
            contact_sheet=contact_sheet(video.frames) if request.record else None,
            metrics={"sampling_seconds": seconds, "steps": config.num_inference_steps, "frames": frames} | scores,
        )

    def check_cost(self, request: VideoCreate, config: SampleConfig, loaded: LoadedVersion) -> None:
        """Refuse a video that the sampler has no memory or time for, before it takes what others on this machine need.

        Raises:
            OutOfMemory: it takes more memory; what would fit is named.
            InvalidConfig: it takes more time; what would fit is named.
        """
        base, settings, origin = self.sampler.base, self.settings, loaded.delta.meta.origin
        precision = default_precision(settings)
        if base.device.type == "cuda":
            device, total = gpu(precision), torch.cuda.get_device_properties(base.device).total_memory
        else:
            device = probes.cpu(precision, settings.threads)
            total = device.memory_bytes
        share = sampler_memory(settings, device.model_copy(update={"memory_bytes": total}))
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
        error = refusal(work, self.profile, precision, device, settings.max_video_seconds, free=free, beside=tier.nbytes)
        if error is not None:
            raise error

    @cached_property
    def profile(self) -> Profile:
        """What the base's network costs. For an architecture that no packaged profile describes it is counted, in seconds."""
        base = self.sampler.base
        unet, vae, text = (json.loads(part.to_json_string()) for part in (base.unet, base.vae, base.text_encoder.config))
        if (packaged := of_configs(unet, vae)) is not None:
            return packaged
        from tav.estimate.trace import profile_of

        log.info("counting the work of %s: no packaged profile describes its architecture", self.name)
        return profile_of(self.name, unet, vae, text, kinds=("inference", "decoding"))

    def _preload(self, ref: str) -> None:
        try:
            version = self.versions.resolve(ref)
            if is_same_base(version.base_fingerprint, self.sampler.base.fingerprint):  # others are for another base's samplers
                self.deltas.preload(version)
        except TavError as error:
            log.warning("%s is not preloaded: %s", ref, error)
