"""The sampler as a Ray Serve deployment: one base per replica, any version of it, one video at a time.

torch comes with the engine, when a replica starts: whoever only deploys does without.
"""

from __future__ import annotations

import asyncio
import logging
import re
import threading
import time
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

import ray
from ray import serve
from ray.serve.config import AutoscalingConfig, RequestRouterConfig

from services import logs, metrics
from services.runtime import collector_paused
from services.sampling.client import version_id
from services.sampling.tiers import Budget
from services.settings import Settings
from tav.config import Progress
from tav.errors import Cancelled, InvalidConfig, TavError
from tav_client.schemas import ModelVersion, VideoCreate

if TYPE_CHECKING:
    from services.sampling.engine import Engine

log = logging.getLogger(__name__)

_UPSCALE_SECONDS = 2.0
_LONGEST_BACKOFF_SECONDS = 0.1
_ADVERTISED = 64
"""Versions that a replica whose host tier is measured in bytes tells Serve of."""

Item = dict[str, Any]


class SamplerDeployment:
    """A replica. Errors leave it as a last item, so that their code and sentence survive the way."""

    def __init__(self, settings: Settings) -> None:
        logs.start()
        self._settings = settings
        self._busy(False)
        self._engine: Engine | None = None
        self._starting = threading.Lock()
        self._one = ThreadPoolExecutor(1, "sampling")  # one video at a time, in the order of asking

        async def hold(model_id: str) -> str:
            return model_id

        # Tells Serve which versions are held here, so that requests come to where their delta is. The deltas themselves
        # are the cache's: Serve drops its oldest entry before the new one has loaded.
        advertised = Budget.parse(settings.sampler_deltas).count or _ADVERTISED
        self._hold = serve.multiplexed(max_num_models_per_replica=advertised)(hold)
        with collector_paused():
            import services.sampling.engine  # noqa: F401 - here, not while somebody waits
        try:
            self._ready()
        except TavError:
            log.exception("The base cannot be loaded; every request is answered with the reason, and tries again.")

    async def sample(
        self, request: dict[str, Any], version: dict[str, Any], ids: Mapping[str, str] | None = None
    ) -> AsyncIterator[Item]:
        """Sample a video.

        Args:
            request: A `VideoCreate`.
            version: The `ModelVersion` that its reference meant.
            ids: Whom the log lines are about, as of `logs.ids`.

        Yields:
            `{"step": 0, "total": n}` at once, with `unread` where the base does not read all of a text; the same with i after
            every step, and last `{"video": bytes, "content_type", "seconds", "size", "latents_sha256", "sheet", "metrics",
            "latency_s", "replica"}` or `{"error": {"code", "message"}}`. When the caller goes away the step at work is the
            last; if that takes longer than `cancel_grace_seconds`, the replica ends.
        """
        gone = threading.Event()
        logs.know(**(ids or {}))
        self._busy(True)
        try:
            async for item in self._sample(VideoCreate.model_validate(request), ModelVersion.model_validate(version), gone):
                yield item
        except TavError as error:
            yield {"error": {"code": error.code, "message": str(error)}}
        except Exception:
            log.exception("Sampling %s of %s/%s failed.", request.get("prompt"), version.get("name"), version.get("version"))
            yield {"error": {"code": "internal", "message": "Sampling failed by a defect of the service; its log says where."}}
        finally:
            gone.set()
            self._busy(False)

    async def _sample(self, request: VideoCreate, version: ModelVersion, gone: threading.Event) -> AsyncIterator[Item]:
        began = time.perf_counter()
        engine = await asyncio.to_thread(self._ready)
        engine.deltas.check(version)
        config = engine.config(request)
        unread = engine.unread(request)
        yield {"step": 0, "total": config.num_inference_steps, **({"unread": unread} if unread else {})}
        async with engine.deltas.use(version) as loaded:
            await self._hold(version_id(version))
            loop, items = asyncio.get_running_loop(), asyncio.Queue[Item | None]()

            def on_step(progress: Progress) -> None:
                stop_if_gone()
                metrics.STEP_SECONDS.observe(progress.seconds, {"phase": progress.phase})
                loop.call_soon_threadsafe(items.put_nowait, {"step": progress.step, "total": progress.total})

            def stop_if_gone() -> None:
                if gone.is_set():
                    raise Cancelled("The caller went away.")

            def compute() -> Item:
                stop_if_gone()
                return engine.sample(request, config, loaded, on_step)

            def ended(work: asyncio.Future[Item]) -> None:
                if not work.cancelled() and (error := work.exception()):
                    log.info("%s of %s ended early: %s", request.prompt, version_id(version), error)
                items.put_nowait(None)

            work = loop.run_in_executor(self._one, copy_context().run, compute)
            work.add_done_callback(ended)
            try:
                while (item := await items.get()) is not None:
                    yield item
            finally:
                gone.set()
                # Until the step at work ends, delta and device are in use. It cannot be interrupted, but the process can.
                _, working = await asyncio.wait([work], timeout=self._settings.cancel_grace_seconds)
                if working:
                    self._end()
                    await asyncio.wait([work])
        replica = serve.get_replica_context().replica_id.unique_id
        yield {**work.result(), "latency_s": time.perf_counter() - began, "replica": replica}

    def _end(self) -> None:
        """End this process; Serve starts another in its place."""
        grace = f"{self._settings.cancel_grace_seconds:g} s"
        log.warning("Nobody wants the video any more, and its step goes on after %s: this sampler ends for another.", grace)
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
    """By base, a deployment scaled by the videos asked for at a time. Ray must be initialised.

    Raises:
        InvalidConfig: two bases would share a deployment's name.
    """
    made = {base: _build(base, settings) for base in settings.served_bases}
    if len({deployment_name(base) for base in made}) < len(made):
        raise InvalidConfig(f"Two of the bases {', '.join(made)} cannot be told apart by their letters and digits: rename one.")
    return made


def deployment_name(base: str) -> str:
    """Of a base's samplers, e.g. `Sampler-CompVis-stable-diffusion-v1-4`."""
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
        # One: a video that waits goes to the first replica that is free, a new one too, instead of behind a busy one.
        max_ongoing_requests=1,
        max_queued_requests=-1,  # the gateway refuses what is too much, before it is accepted
        request_router_config=RequestRouterConfig(max_backoff_s=_LONGEST_BACKOFF_SECONDS),
        graceful_shutdown_timeout_s=settings.sampler_grace_seconds,
        health_check_timeout_s=60.0,
    )
    return deployment.bind(settings.model_copy(update={"base": base}))
