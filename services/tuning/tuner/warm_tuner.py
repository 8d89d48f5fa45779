"""The network and engine that a rank keeps from job to job; rebuilt when a memory setting needs another engine."""

from __future__ import annotations

import gc
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from deepspeed.accelerator import get_accelerator

from services.compute import default_precision, load_base, on_cuda
from services.settings import Settings
from services.tuning.estimates import forecast, work_of
from services.tuning.tuner.deepspeed_engine import DeepSpeedEngine
from tav import Base, Tuner, VideoUNet, compile_blocks, inflate
from tav.errors import InvalidConfig
from tav.estimate import Device, probes
from tav.estimate.measure import gpu
from tav.estimate.profile import of_configs
from tav.memory import MemorySetting, Precision
from tav.precision import DTYPES
from tav_client.schemas import Estimates, TuningJob

log = logging.getLogger(__name__)


class WarmTuner:
    """One base and at most one tuner on it; all ranks of a worker group call the same methods in the same order.

    Args:
        name: the base's.
        settings: the service's.
        rank: this process's.

    Raises:
        BaseUnavailable: no such base.
    """

    def __init__(self, name: str, settings: Settings, rank: int) -> None:
        self.name, self.settings, self.rank = name, settings, rank
        self.precision: Precision = default_precision(settings)
        self.base: Base = load_base(name, settings)
        self._tuner: Tuner | None = None
        self._engine: MemorySetting | None = None

    def tuner(self, setting: MemorySetting) -> Tuner:
        """Return a tuner for that setting: the present one if its engine fits, otherwise a new one in its place.

        Raises:
            InvalidConfig: the device does not compute in the setting's precision.
        """
        engine_setting = setting.model_copy(update={"precision": setting.precision or self.precision}).engine()
        if self._tuner is not None and self._engine == engine_setting:
            return self._tuner
        self.discard()
        assert engine_setting.precision is not None
        self._load_in(engine_setting.precision)
        # Stage 3 shards a copy of the parameters; the original then only starts the next network.
        self.base.unet.to("cpu" if engine_setting.zero_stage == 3 else self.base.device)
        engine = partial(DeepSpeedEngine, setting=engine_setting)
        self._tuner = Tuner(self.base, engine, self.base.tune_config(), self.rank)
        if self.settings.compile and engine_setting.zero_stage < 3:  # whose hooks gather parameters layer by layer
            compile_blocks(self._tuner.net)
        self._engine = engine_setting
        return self._tuner

    def forecast(self, job: TuningJob, steps: list[MemorySetting], ranks: int) -> Estimates | None:
        """Estimate what a job takes in each setting; None where no profile describes the base's architecture."""
        unet, vae = (json.loads(part.to_json_string()) for part in (self.base.unet, self.base.vae))
        if (profile := of_configs(unet, vae)) is None:
            log.info("what the job takes is not estimated: no profile describes the base's architecture")
            return None
        work = work_of(job.params, self.base.defaults, videos=len(job.validation_prompts), gpus=ranks)
        return forecast(work, profile, steps, self._device_in)

    def _device_in(self, precision: Precision) -> Device:
        """Return this process's device: its speeds, measured once on this machine, and the memory that is free now."""
        return gpu(precision) if on_cuda(self.settings) else probes.cpu(precision, self.settings.threads)

    def discard(self) -> None:
        """Drop the tuner, whatever state it is in, and free all its memory."""
        tuner, self._tuner, self._engine = self._tuner, None, None
        if tuner is not None and isinstance(tuner.engine, DeepSpeedEngine):
            tuner.engine.close()
        del tuner
        gc.collect()
        if self.base.device.type == "cuda":
            torch.cuda.empty_cache()

    def rest(self) -> None:
        """Free what the next job does not need: AdamW's moments, twice the tuned tensors in fp32."""
        if self._tuner is not None and isinstance(self._tuner.engine, DeepSpeedEngine):
            self._tuner.engine.rest()
        if self.base.device.type == "cuda":
            torch.cuda.empty_cache()

    @contextmanager
    def sampling_net(self) -> Iterator[VideoUNet]:
        """Yield a network to invert and sample with, on this rank alone; its tuned tensors may be overwritten.

        The tuner rests from here on. The network is the tuner's own, except under stage 3, where that one is sharded over the
        ranks: there it is a new one.
        """
        self.rest()
        if self._tuner is not None and self._engine is not None and self._engine.zero_stage < 3:
            yield self._tuner.net
            return
        self.base.unet.to(self.base.device)
        try:
            yield inflate(self.base.unet)
        finally:
            self.base.unet.to("cpu")

    def _load_in(self, precision: Precision) -> None:
        dtype = DTYPES[precision]
        if dtype not in get_accelerator().supported_dtypes():
            raise InvalidConfig(f"this device does not compute in {precision}: use precision bf16 or fp32")
        if dtype is not self.base.dtype:  # from the files: narrowing and widening again would lose digits
            self.base = load_base(self.name, self.settings, precision)
