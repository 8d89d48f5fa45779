"""The sampler as a Ray Serve deployment: a replica has one base, samples any version of it, one video at a time.

torch is imported with the engine, when a replica starts: a process that only deploys does without.
"""

from __future__ import annotations

import asyncio
import logging
import re
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import replace
from typing import TYPE_CHECKING

import ray
from ray import serve
from ray.serve.config import AutoscalingConfig, RequestRouterConfig

from services import logs, metrics
from services.runtime import collector_paused
from services.sampling.messages import Reply, SampledVideo, SampleRequest, Step, failure_of, version_id
from services.sampling.tiers import Budget
from services.settings import Settings
from tav.config import Progress
from tav.errors import Cancelled, InvalidConfig, TavError
from tav_client.schemas import Failure, FailureCode

if TYPE_CHECKING:
    from services.sampling.engine import Engine

log = logging.getLogger(__name__)

_UPSCALE_SECONDS = 2.0
_LONGEST_BACKOFF_SECONDS = 0.1
_ADVERTISED = 64
"""Versions that a replica tells Serve of, where its host tier is measured in bytes."""


class SamplerDeployment:
    """One replica. It sends errors as a last reply, see `messages`.

    Args:
        settings: the service's; `base` is the replica's own.
    """

    def __init__(self, settings: Settings) -> None:
        logs.start()
        self._settings = settings
        self._busy(False)
        self._engine: Engine | None = None
        self._starting = threading.Lock()
        self._executor = ThreadPoolExecutor(1, "sampling")  # one video at a time, in the order of the requests

        async def hold(model_id: str) -> str:
            return model_id

        # Tells Serve which versions are here, so that it routes requests to where their delta is. The deltas themselves are
        # in the cache: Serve would drop its oldest entry before the new one has loaded.
        advertised = Budget.parse(settings.sampler_deltas).count or _ADVERTISED
        self._hold = serve.multiplexed(max_num_models_per_replica=advertised)(hold)
        with collector_paused():
            import services.sampling.engine  # noqa: F401 - now, not while a request waits
        try:
            self._ready()
        except TavError:
            log.exception("the base cannot be loaded; every request tries again, and fails with the reason")

    async def sample(self, request: SampleRequest) -> AsyncIterator[Reply]:
        """Sample a video.

        Yields:
            step 0 at once, a step after every denoising step, and last the video or the reason why there is none. When the
            caller disconnects, the running step is the last; if it takes longer than `cancel_grace_seconds`, the replica ends.
        """
        caller_gone = threading.Event()
        logs.know(**request.log_ids)
        self._busy(True)
        try:
            async for reply in self._sample(request, caller_gone):
                yield reply
        except TavError as error:
            yield failure_of(error)
        except Exception:
            log.exception("sampling %s of %s failed", request.video.prompt, version_id(request.version))
            message = "Sampling failed by a defect of the service; its log says where."
            yield Failure(code=FailureCode.internal, message=message)
        finally:
            caller_gone.set()
            self._busy(False)

    async def _sample(self, request: SampleRequest, caller_gone: threading.Event) -> AsyncIterator[Reply]:
        began = time.perf_counter()
        video, version = request.video, request.version
        engine = await asyncio.to_thread(self._ready)
        engine.deltas.check(version)
        config = engine.config(video)
        yield Step(0, config.num_inference_steps, engine.unread(video))
        async with engine.deltas.use(version) as loaded:
            await self._hold(version_id(version))
            loop, steps = asyncio.get_running_loop(), asyncio.Queue[Step | None]()

            def on_step(progress: Progress) -> None:
                stop_if_gone()
                metrics.STEP_SECONDS.observe(progress.seconds, {"phase": progress.phase})
                loop.call_soon_threadsafe(steps.put_nowait, Step(progress.step, progress.total))

            def stop_if_gone() -> None:
                if caller_gone.is_set():
                    raise Cancelled("The caller went away.")

            def compute() -> SampledVideo:
                stop_if_gone()
                return engine.sample(video, config, loaded, on_step)

            def ended(work: asyncio.Future[SampledVideo]) -> None:
                if not work.cancelled() and (error := work.exception()):
                    log.info("%s of %s ended early: %s", video.prompt, version_id(version), error)
                steps.put_nowait(None)

            work = loop.run_in_executor(self._executor, copy_context().run, compute)
            work.add_done_callback(ended)
            try:
                while (step := await steps.get()) is not None:
                    yield step
            finally:
                caller_gone.set()
                # Until the running step ends, it uses delta and device. It cannot be interrupted, but the process can.
                _, running = await asyncio.wait([work], timeout=self._settings.cancel_grace_seconds)
                if running:
                    self._end()
                    await asyncio.wait([work])
        sampled = work.result()
        latency = {"latency_seconds": time.perf_counter() - began}
        replica = serve.get_replica_context().replica_id.unique_id
        yield replace(sampled, metrics={**sampled.metrics, **latency}, replica=replica)

    def _end(self) -> None:
        """End this process; Serve starts another in its place."""
        grace = f"{self._settings.cancel_grace_seconds:g} s"
        log.warning("the caller disconnected, but the step has not ended within %s: this replica ends", grace)
        ray.kill(ray.get_runtime_context().current_actor)

    def _busy(self, busy: bool) -> None:
        states = {"idle": int(not busy), "busy": int(busy)}
        metrics.set_states(metrics.SAMPLERS, "state", states, base=self._settings.base)

    def _ready(self) -> Engine:
        with self._starting:
            if self._engine is None:
                from services.sampling.engine import Engine

                self._engine = Engine(self._settings)
            return self._engine


def build_samplers(settings: Settings) -> dict[str, serve.Application]:
    """Return a deployment for each base, scaled by its videos at a time. Ray must be initialised.

    Raises:
        InvalidConfig: two bases would share a deployment's name.
    """
    bases = settings.served_bases
    if len({deployment_name(base) for base in bases}) < len(bases):
        names = ", ".join(bases)
        raise InvalidConfig(f"Two of the bases {names} cannot be told apart by their letters and digits: rename one.")
    return {base: _build(base, settings) for base in bases}


def deployment_name(base: str) -> str:
    """Return the name of a base's deployment, e.g. `Sampler-CompVis-stable-diffusion-v1-4`."""
    return "Sampler-" + re.sub(r"[^A-Za-z0-9._]+", "-", base).strip("-")


def _build(base: str, settings: Settings) -> serve.Application:
    gpu = settings.device == "cuda" or (settings.device == "auto" and ray.cluster_resources().get("GPU", 0) > 0)
    deployment = serve.deployment(
        SamplerDeployment,
        name=deployment_name(base),
        ray_actor_options={"num_cpus": settings.sampler_cpus, "num_gpus": settings.sampler_gpus if gpu else 0},
        autoscaling_config=AutoscalingConfig(
            min_replicas=settings.sampler_min_replicas,
            max_replicas=max(settings.sampler_min_replicas, settings.sampler_max_replicas),
            target_ongoing_requests=1,
            upscale_delay_s=_UPSCALE_SECONDS,
            downscale_delay_s=settings.sampler_idle_seconds,
            downscale_to_zero_delay_s=settings.sampler_idle_seconds,
            metrics_interval_s=1.0,
            look_back_period_s=2.0,
        ),
        # One: a waiting video goes to the first replica that is free, also a new one, and never waits behind a busy one.
        max_ongoing_requests=1,
        max_queued_requests=-1,  # the gateway refuses what is too much
        request_router_config=RequestRouterConfig(max_backoff_s=_LONGEST_BACKOFF_SECONDS),
        graceful_shutdown_timeout_s=settings.sampler_grace_seconds,
        health_check_timeout_s=60.0,
    )
    return deployment.bind(settings.model_copy(update={"base": base}))
