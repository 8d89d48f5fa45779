"""One attempt at one job: prepare, tune, invert, validate, register, with progress, cancel and resume."""

from __future__ import annotations

import json
import logging
import shutil
import time
import traceback
from typing import Any

import ray
import torch
import torch.distributed as dist

from registry.errors import StorageUnavailable
from registry.jobs import JobStore
from registry.objects import ObjectStore
from registry.versions import VersionInfo, VersionStore
from services.settings import Settings
from services.tuning.lease import Beat, Lease, Outcome, Verdict
from services.tuning.resume import ResumeStore
from tav import Clip, Delta, Latents, Progress, Sampler, TavError, Tuner, Video, invert
from tav_client.schemas import Failure, FailureCode, JobPhase, TuningJob

log = logging.getLogger(__name__)

_BEAT_SECONDS = 0.5
_METRIC_SECONDS = 5.0
# Cost of one step in network forwards: with the backward pass, one forward, and one guided (two) forwards.
_TUNING_COST, _INVERTING_COST, _SAMPLING_COST = 3.0, 1.0, 2.0


class _Stopped(Exception):
    """The scheduler's last verdict was to stop."""


class Attempt:
    """Runs on every rank of a tuner; rank 0 inverts, validates, registers and speaks for all."""

    def __init__(self, lease: Lease, tuner: Tuner, settings: Settings, scheduler: Any) -> None:
        self.job: TuningJob = lease.job
        self.number = lease.attempt
        self.tuner, self.settings, self.scheduler = tuner, settings, scheduler
        self.leader = tuner.rank == 0
        self.alone = dist.get_world_size() == 1
        objects = ObjectStore(settings)
        self.objects, self.store = objects, JobStore(settings, objects)
        self.versions, self.resume = VersionStore(settings, objects), ResumeStore(objects, lease.job.id)
        self.folder = settings.work_dir / "jobs" / f"{lease.job.id}-{lease.attempt}-{tuner.rank}"
        self.metrics: list[tuple[str, float, int, int]] = []
        self.last_beat = self.last_metrics = 0.0
        self.last_checkpoint = time.monotonic()

    def run(self) -> None:
        """Work on the job and tell the scheduler how it ended."""
        self.folder.mkdir(parents=True, exist_ok=True)
        outcome: Outcome | None = None
        try:
            outcome = Outcome(version=self._work())
        except _Stopped:
            if self.leader and self.verdict is Verdict.cancel:
                outcome = Outcome()
            else:
                log.warning("job %s attempt %d is no longer this tuner's", self.job.id, self.number)
        except StorageUnavailable as error:
            outcome = Outcome(failure=Failure(code=FailureCode.storage_unavailable, message=str(error)), retry=True)
        except TavError as error:
            outcome = Outcome(failure=Failure(code=FailureCode(error.code), message=str(error)))
        except Exception as error:  # noqa: BLE001 - a defect fails this job with its traceback, not the tuner
            message = f"An unexpected {type(error).__name__} ended the job; its run keeps the traceback. Please report it."
            outcome = Outcome(failure=Failure(code=FailureCode.internal, message=message), traceback=traceback.format_exc())
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)
        if self.leader and outcome is not None:
            if not outcome.retry:
                self.resume.delete()
            ray.get(self.scheduler.finish.remote(self.job.id, self.number, outcome))

    def _work(self) -> int | None:
        base, params = self.tuner.base, self.job.params
        clip_config = base.clip_config(
            num_frames=params.num_frames, size=params.size, start=params.frame_start, stride=params.frame_stride
        )
        tune_config = base.tune_config(
            steps=params.steps,
            learning_rate=params.learning_rate,
            seed=params.seed,
            gradient_checkpointing=params.gradient_checkpointing,
        )
        self._plan(tune_config.steps)
        self._beat(JobPhase.preparing, 0, 1)
        source = self.objects.get_file(self.job.clip.uri, self.folder / "source.mp4", self.job.clip.sha256)
        clip = Clip.read(
            source, self.job.caption, clip_config.num_frames, clip_config.size, clip_config.start, clip_config.stride
        )
        delta = self.tuner.tune(
            clip,
            tune_config,
            attention=params.attention,
            group_norm=params.group_norm,
            on_step=self._on_step,
            resume=self.resume.load(),
        )
        if not self.leader:
            return None
        self._flush_metrics()
        sampler = Sampler(base, self.tuner.net)
        latents = invert(base, clip, delta, base.invert_config(), on_step=self._on_step, net=self.tuner.net)
        samples = self._validate(sampler, delta, latents)
        return self._register(clip, delta, latents, samples)

    def _validate(self, sampler: Sampler, delta: Delta, latents: Latents) -> list[Video]:
        videos = []
        for number, prompt in enumerate(self.job.validation_prompts, 1):
            videos.append(sampler.sample(prompt, delta=delta, latents=latents, on_step=self._on_step))
            self.store.log_bytes(self.job.id, videos[-1].encode(), f"samples/{number}.mp4")
        if videos:
            prompts = {f"{i}.mp4": prompt for i, prompt in enumerate(self.job.validation_prompts, 1)}
            self.store.log_bytes(
                self.job.id, json.dumps(prompts, indent=2, ensure_ascii=False).encode(), "samples/prompts.json"
            )
        return videos

    def _register(self, clip: Clip, delta: Delta, latents: Latents, samples: list[Video]) -> int:
        self._beat(JobPhase.registering, 0, 1)
        base, folder = self.tuner.base, self.folder / "version"
        folder.mkdir()
        delta.save(folder / "delta.safetensors")
        latents.save(folder / "latents.safetensors")
        (samples[0] if samples else clip.video()).save(folder / "preview.mp4")
        config = {
            "base": base.name,
            "base_fingerprint": base.fingerprint,
            "caption": clip.caption,
            "delta": delta.meta.model_dump(mode="json"),
            "latents": latents.meta.model_dump(mode="json"),
            "sample": base.sample_config().model_dump(mode="json"),
            "samples": [
                {"prompt": prompt, "latents_sha256": video.latents_sha256}
                for prompt, video in zip(self.job.validation_prompts, samples, strict=True)
            ],
        }
        (folder / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False))
        info = VersionInfo(base.name, base.fingerprint, clip.caption, len(clip.frames), clip.size)
        return self.versions.register(self.job, folder, info).version

    # -- progress

    def _plan(self, tuning_steps: int) -> None:
        base = self.tuner.base
        samples = len(self.job.validation_prompts)
        self.costs = {"tuning": _TUNING_COST, "inverting": _INVERTING_COST, "sampling": _SAMPLING_COST}
        self.total_cost = (
            _TUNING_COST * tuning_steps
            + _INVERTING_COST * base.invert_config().num_inference_steps
            + _SAMPLING_COST * base.sample_config().num_inference_steps * samples
        )
        self.done_cost = self.worked_cost = self.worked_seconds = 0.0

    def _on_step(self, progress: Progress) -> None:
        """After every step of every phase: beat, metrics, resume checkpoint; raises to stop the work."""
        cost = self.costs[progress.phase]
        self.worked_cost += cost
        self.worked_seconds += progress.seconds
        self.done_cost = max(self.done_cost + cost, progress.step * cost if progress.phase == "tuning" else 0)
        now = time.monotonic()
        due = progress.phase == "tuning" and now - self.last_checkpoint >= self.settings.checkpoint_seconds
        stop = False
        if self.leader:
            if progress.loss is not None:
                stamp = time.time_ns() // 1_000_000
                self.metrics.append(("loss", progress.loss, progress.step, stamp))
                self.metrics.append(("step_seconds", progress.seconds, progress.step, stamp))
            if now - self.last_metrics >= _METRIC_SECONDS:
                self._flush_metrics()
            if now - self.last_beat >= _BEAT_SECONDS or progress.step == progress.total:
                phase = JobPhase.validating if progress.phase == "sampling" else JobPhase(progress.phase)
                stop = self._ask(phase, progress.step, progress.total, progress.loss) is not Verdict.go_on
        if progress.phase == "tuning":
            stop, due = self._agree(stop, due)
        if stop:
            raise _Stopped
        if due and progress.step < progress.total:
            state = self.tuner.state()
            if self.leader:
                self.resume.save(state)
            self.last_checkpoint = time.monotonic()

    def _agree(self, *flags: bool) -> tuple[bool, ...]:
        """Rank 0's flags on all ranks: they must stop, and gather their state, at the same step."""
        if self.alone:
            return flags
        box = torch.tensor(flags, dtype=torch.int32, device=self.tuner.base.device)
        dist.broadcast(box, src=0)
        return tuple(bool(flag) for flag in box.tolist())

    def _beat(self, phase: JobPhase, step: int, total: int) -> None:
        if self.leader and self._ask(phase, step, total, None) is not Verdict.go_on and phase is JobPhase.registering:
            raise _Stopped  # while preparing, the first tuning step will tell all ranks

    def _ask(self, phase: JobPhase, step: int, total: int, loss: float | None) -> Verdict:
        left = self.total_cost - self.done_cost
        eta = left * self.worked_seconds / self.worked_cost if self.worked_cost else None
        beat = Beat(phase, step, total, min(1.0, self.done_cost / self.total_cost), loss, eta)
        self.verdict: Verdict = ray.get(self.scheduler.beat.remote(self.job.id, self.number, beat))
        self.last_beat = time.monotonic()
        return self.verdict

    def _flush_metrics(self) -> None:
        points, self.metrics = self.metrics, []
        self.last_metrics = time.monotonic()
        if points:
            self.store.log_metrics(self.job.id, points)
