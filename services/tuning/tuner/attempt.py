"""One attempt at one job: prepare, tune, invert, validate, register, with progress, cancel and resume."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import ray.train

from registry.errors import StorageUnavailable
from registry.jobs import JobStore
from registry.objects import ObjectStore
from registry.registration import VersionInfo, version_config
from registry.versions import VersionStore
from services import logs
from services.compute import on_cuda, tuner_memory
from services.retries import pauses, retry
from services.scratch import Scratch
from services.settings import Settings
from services.tuning.estimates import beyond, rungs
from services.tuning.messages import Lease, Outcome, Verdict
from services.tuning.tuner.checkpoints import ResumeStore
from services.tuning.tuner.failures import OutOfMemoryForNow, lost_its_cluster, outcome_of
from services.tuning.tuner.job_log import JobLog
from services.tuning.tuner.ranks import Ranks, RanksApart
from services.tuning.tuner.reporter import Reporter
from services.tuning.tuner.warm_tuner import WarmTuner
from tav import Clip, Delta, Latents, Progress, Sampler, Video, invert
from tav.config import TuneConfig
from tav.errors import InvalidConfig, OutOfMemory
from tav.eval.scores import Scorer, as_metrics
from tav.memory import MemorySetting
from tav.prompts import refusal, texts_of
from tav.tuning import TuneState, is_out_of_memory
from tav_client.schemas import Estimate, JobMemory, JobPhase, TuningJob

log = logging.getLogger(__name__)
T = TypeVar("T")

_LONGEST_PAUSE_SECONDS = 5.0
_LOOK_SECONDS = 2.0
"""Between two looks for a node's preemption notice; each is a round through Ray Train."""
_FLAGS = 4
"""What the ranks agree on after each step: stop, checkpoint, look, and whether one has failed."""


_SMALLER = "use fewer frames or a smaller size"


class _Stopped(Exception):
    """The scheduler's last verdict was to stop."""


class _Leaving(Exception):
    """A node of the tuner is about to be taken away; the checkpoint is kept."""


class _Shared(Exception):
    """Another rank has failed; it says how."""


class Attempt:
    """Runs on every rank of a tuner; the leader inverts, validates, registers and speaks for all."""

    def __init__(
        self, lease: Lease, warm: WarmTuner, settings: Settings, scheduler: Any, ranks: Ranks, scorer: Scorer | None
    ) -> None:
        self.job: TuningJob = lease.job
        self.number = lease.attempt
        self.warm, self.settings, self.ranks, self.leader = warm, settings, ranks, ranks.leader
        objects = ObjectStore(settings)
        self.objects, self.store = objects, JobStore(settings, objects)
        self.versions, self.resume = VersionStore(settings, objects), ResumeStore(objects, lease.job.id)
        self.scratch: Scratch | None = None
        self.scorer = scorer
        """Of the validation samples; the leader has it."""
        self.joblog = JobLog(f"attempt {self.number} at job {self.job.id} begins")
        self.report = Reporter(lease, scheduler, self.store, self.joblog)
        self.last_checkpoint = time.monotonic()
        self.last_look = -_LOOK_SECONDS  # the first step looks
        self.estimates: dict[MemorySetting, Estimate] = {}
        """By memory setting, for the leader."""

    def run(self) -> None:
        """Work on the job and tell the scheduler how it ended.

        Raises:
            RanksApart: the tuner's ranks cannot go on together; the scheduler has been told what failed.
            RayError: the tuner has lost its cluster; the scheduler will hear of that from Ray.
        """
        with logs.about(**logs.about_job(self.job)), self.joblog:
            try:
                outcome = self._outcome()
            except RanksApart as apart:
                failure = apart.__cause__
                if isinstance(failure, Exception) and not lost_its_cluster(failure):
                    self.report.end(outcome_of(failure))
                raise
            finally:
                if self.scratch is not None:
                    self.scratch.remove()
                self.warm.rest()
            if self.leader:
                if outcome is not None and outcome.last:
                    self._forget_checkpoint()
                self.report.end(outcome)

    def _outcome(self) -> Outcome | None:
        """None: there is nothing to tell, the attempt is not this tuner's any more."""
        try:
            version = self._work()
            log.info("the job has succeeded")
            return Outcome(version=version)
        except RanksApart:
            raise
        except _Stopped:
            if self.report.verdict is Verdict.cancel:
                log.info("stopped, as asked")
                return Outcome()
            log.warning("job %s attempt %d is no longer this tuner's", self.job.id, self.number)
            return None
        except _Leaving:
            return Outcome(handed_back=True)
        except Exception as error:
            if lost_its_cluster(error):
                raise
            # A defect fails this job with its traceback, not the tuner.
            outcome = outcome_of(error)
            log.error("%s", outcome.traceback or (outcome.failure.message if outcome.failure else f"stopped: {error}"))
            return outcome

    def _work(self) -> int | None:
        base, params = self.warm.base, self.job.params
        clip_config = base.clip_config(
            num_frames=params.num_frames, size=params.size, start=params.frame_start, stride=params.frame_stride
        )
        tune_config = base.tune_config(
            steps=params.steps,
            learning_rate=params.learning_rate,
            seed=params.seed,
        )
        self.report.plan(base, tune_config.steps, len(self.job.validation_prompts))
        if (version := self.ranks.from_leader(self.ranks.together(self._registered))) is not None:
            return version

        caption = self.job.caption or self.ranks.from_leader(self.ranks.together(self._say_what_it_shows))

        self.ranks.together(lambda: self._look_at_words(caption))

        def prepare() -> tuple[Clip, TuneState | None]:
            self._check_in(JobPhase.preparing)
            c = clip_config
            clip = Clip.read(self._source(), caption, c.num_frames, c.size, c.start, c.stride, self.settings.clip_limits)
            clip.caption_source = self.job.caption_source
            return clip, self._patiently(self.resume.load)

        clip, resume = self.ranks.together(prepare)
        if resume is not None:
            log.info("goes on after step %d", resume.step)
        delta = self._tune(clip, tune_config, resume)
        if not self.leader:
            return None
        latents, samples = self._invert_and_sample(clip, delta)
        self._show("source", clip.video())
        if samples and self.scorer is not None:
            shown = zip(self.job.validation_prompts, (video.frames for video in samples), strict=True)
            self.report.scores(as_metrics(self.scorer, list(shown), clip.frames), tune_config.steps)
        return self._register(clip, delta, latents, samples)

    def _source(self) -> Path:
        """The clip's file, fetched once."""
        return self._patiently(self._fetch)

    def _fetch(self) -> Path:
        self.scratch = self.scratch or Scratch(self.settings.work_dir, "job")
        path = self.scratch.path / "source.mp4"
        return path if path.is_file() else self.objects.get_file(self.job.clip.uri, path, self.job.clip.sha256)

    def _say_what_it_shows(self) -> str:
        """The caption of a clip that came without one, kept with the job; the leader's counts."""
        if not self.leader:
            return ""
        from tav.caption import Captioner

        if self.settings.captioner is None:
            raise InvalidConfig("the clip has no caption, and the service no captioner any more: submit it again with one")
        self._check_in(JobPhase.preparing)
        said = Captioner(self.settings.captioner, self.warm.base.device).caption_clip(self._source(), self.settings.clip_limits)
        log.info("captioned by %s: %s", self.settings.captioner, said)
        self._patiently(lambda: self.store.set_caption(self.job.id, said))
        self.report.caption = said
        return said

    def _look_at_words(self, caption: str) -> None:
        """Tell what of the job's texts the base does not read, or refuse it; the leader's work."""
        if not self.leader:
            return
        unread = self.warm.base.reader.unread_of(texts_of(caption, self.job.validation_prompts))
        for name, end in unread.items():
            log.warning("the base does not read the end of %s, which is too long for it: %r", name, end)
        if self.job.truncate == "error" and (refused := refusal(unread)):
            raise refused
        if unread != self.job.unread:
            self._patiently(lambda: self.store.set_unread(self.job.id, unread))
        self.report.unread = unread

    def _registered(self) -> int | None:
        """The version that an earlier attempt registered before it was lost."""
        if not self.leader or self.number == 1:
            return None
        found = self._patiently(lambda: self.versions.of_job(self.job.id))
        return None if found is None else found.version

    def _tune(self, clip: Clip, config: TuneConfig, resume: TuneState | None) -> Delta:
        """Tune in the job's memory setting; with `auto`, after each out of memory in the next leaner one."""
        rungs = self.ranks.from_leader(self.ranks.together(lambda: self._rungs() if self.leader else []))
        for setting, *leaner in (rungs[place:] for place in range(len(rungs))):
            log.info("tunes with %s", setting.describe())
            self._keep_setting(setting)
            self.report.expect(self.estimates.get(setting))
            try:
                return self._tune_in(setting, clip, config, resume)
            except OutOfMemory as error:
                failed = str(error)
            except RanksApart as apart:
                if leaner and isinstance(apart.__cause__, OutOfMemory):
                    self._keep_setting(leaner[0], self.ranks.rank)
                    raise RanksApart(str(apart)) from OutOfMemoryForNow(str(apart.__cause__))
                raise
            log.warning("%s", failed)
            self.warm.discard()  # out here nothing holds the error, whose traceback holds the activations
            resume = self.ranks.together(lambda: self._patiently(self.resume.load))
        explicit = isinstance(self.job.params.memory, JobMemory)
        raise OutOfMemory(
            f"{_shape(clip)} do not fit the device's memory with {rungs[-1].describe()}: "
            + ("leave `memory` to `auto`, or " if explicit else "")
            + _SMALLER
        )

    def _rungs(self) -> list[MemorySetting]:
        """The settings to try: from the one that an earlier attempt worked in; otherwise from the fastest that fits."""
        steps = rungs(self.job.params, self.settings, cuda=on_cuda(self.settings))
        stored = self._patiently(self.resume.load_setting)
        if (found := self.warm.forecast(self.job, steps, self.ranks.size)) is not None:
            if refused := beyond(found, tuner_memory(self.settings)):
                raise refused
            self.estimates = dict(zip(steps, found.settings, strict=True))
            stored = stored or steps[found.chosen]
        return steps[steps.index(stored) :] if stored in steps else steps

    def _keep_setting(self, setting: MemorySetting, speaker: int = 0) -> None:
        """What a later attempt is to work in, so that it ends in the same bits."""
        if self.ranks.rank == speaker:
            self._patiently(lambda: self.resume.save_setting(setting))

    def _tune_in(self, setting: MemorySetting, clip: Clip, config: TuneConfig, resume: TuneState | None) -> Delta:
        try:
            self.tuner = self.warm.tuner(setting)
            return self.tuner.tune(
                clip,
                config.model_copy(update={"gradient_checkpointing": setting.gradient_checkpointing}),
                attention=self.job.params.attention,
                group_norm=self.job.params.group_norm,
                on_step=self._on_step,
                resume=resume,
            )
        except _Shared:
            self.ranks.share(None)
            raise
        except (_Stopped, _Leaving, RanksApart):
            raise
        except Exception as error:
            told = error
            if isinstance(error, RuntimeError) and is_out_of_memory(error):  # while the tuner was made
                told = OutOfMemory(f"the network and its optimizer do not fit the device's memory with {setting.describe()}")
            self.ranks.tell_failure(told, _FLAGS)
            raise

    def _invert_and_sample(self, clip: Clip, delta: Delta) -> tuple[Latents, list[Video]]:
        base = self.warm.base  # tuning in a precision of its own has loaded it anew
        try:
            with self.warm.sampling_net() as net:
                latents = invert(base, clip, delta, base.invert_config(), on_step=self._on_step, net=net)
                return latents, self._validate(Sampler(base, net), delta, latents)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise OutOfMemory(f"inverting and sampling {_shape(clip)} do not fit the device's memory: {_SMALLER}") from error

    def _validate(self, sampler: Sampler, delta: Delta, latents: Latents) -> list[Video]:
        videos = []
        for number, prompt in enumerate(self.job.validation_prompts, 1):
            videos.append(sampler.sample(prompt, delta=delta, latents=latents, on_step=self._on_step))
            self._keep(videos[-1].encode(), f"samples/{number}.mp4")
            self._show(f"sample {number}", videos[-1])
        if videos:
            prompts = {f"{i}.mp4": prompt for i, prompt in enumerate(self.job.validation_prompts, 1)}
            self._keep(json.dumps(prompts, indent=2, ensure_ascii=False).encode(), "samples/prompts.json")
        return videos

    def _register(self, clip: Clip, delta: Delta, latents: Latents, samples: list[Video]) -> int:
        self._check_in(JobPhase.registering)
        folder = self._patiently(lambda: self._write_version(clip, delta, latents, samples))
        info = VersionInfo.of(delta)
        made = self._patiently(lambda: self.versions.register(self.job, folder, info, before=self._last_word))
        log.info("registered as %s/%d", made.name, made.version)
        return made.version

    def _write_version(self, clip: Clip, delta: Delta, latents: Latents, samples: list[Video]) -> Path:
        """A version's files, in a folder; made once more where the disk was full."""
        assert self.scratch is not None  # the clip is in it
        folder = self.scratch.path / "version"
        folder.mkdir(exist_ok=True)
        delta.save(folder / "delta.safetensors")
        latents.save(folder / "latents.safetensors")
        (samples[0] if samples else clip.video()).save(folder / "preview.mp4")
        config = version_config(self.warm.base, delta, latents) | {
            "samples": [
                {"prompt": prompt, "latents_sha256": video.latents_sha256}
                for prompt, video in zip(self.job.validation_prompts, samples, strict=True)
            ],
        }
        (folder / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False))
        return folder

    # -- what happens around the work

    def _on_step(self, progress: Progress) -> None:
        """After every step of every phase: report, resume checkpoint; raises to stop the work."""
        now = time.monotonic()
        tuning, leave = progress.phase == "tuning", False
        due = tuning and now - self.last_checkpoint >= self.settings.checkpoint_seconds
        stop = self.leader and self.report.step(progress) is not Verdict.go_on
        if tuning:
            look = self.leader and now - self.last_look >= _LOOK_SECONDS
            stop, due, look, failed = self.ranks.any(stop, due and self.leader, look, False)
            if failed:
                raise _Shared
            leave = look and self._leaves()
        if stop:
            raise _Stopped
        if progress.step == progress.total:
            return
        if due or leave:
            state = self.tuner.state()
            if self.leader:
                self._save_checkpoint(state)
            self.last_checkpoint = time.monotonic()
        if leave:
            raise _Leaving

    def _leaves(self) -> bool:
        """True when a node of the tuner is about to be taken away. All ranks ask together."""
        self.last_look = time.monotonic()
        if ray.train.get_preemption_info() is None:
            return False
        log.warning("a node of this tuner is about to be taken away: the job goes on elsewhere")
        return True

    def _save_checkpoint(self, state: TuneState) -> None:
        try:
            self.resume.save(state)
        except StorageUnavailable as error:
            log.warning("no checkpoint at step %d: %s", state.step, error)  # the next one may be kept
        else:
            log.info("checkpoint at step %d", state.step)

    def _forget_checkpoint(self) -> None:
        try:
            self._patiently(self.resume.delete)
        except (StorageUnavailable, _Stopped) as error:
            log.warning("the checkpoint is left behind: %s", error)

    def _keep(self, data: bytes, name: str) -> None:
        self._patiently(lambda: self.store.log_bytes(self.job.id, data, name))

    def _show(self, key: str, video: Video) -> None:
        """In MLflow's comparison of runs."""
        self._patiently(lambda: self.store.log_sheet(self.job.id, key, video.frames))

    def _check_in(self, phase: JobPhase) -> None:
        """A phase begins, unless the job is to stop."""
        log.info("%s", phase.value)
        if self.leader and self.report.ask(phase) is not Verdict.go_on:
            raise _Stopped

    def _last_word(self) -> None:
        """After this the version exists.

        Raises:
            NotFound: somebody has deleted the job's run, of which the scheduler need not know yet.
        """
        self._check_verdict()
        self.store.get(self.job.id)

    def _check_verdict(self) -> None:
        if self.leader and self.report.ask_again() is not Verdict.go_on:
            raise _Stopped

    def _patiently(self, call: Callable[[], T]) -> T:
        """Do a call that needs storage or room on the disk, again and again while it fails for want of them.

        As long as the settings allow and the job may go on. A tuner on a full disk so keeps few jobs waiting, instead of
        taking one after the other and failing them all.
        """
        deadline = time.monotonic() + self.settings.storage_patience_seconds
        return retry(call, pauses(_LONGEST_PAUSE_SECONDS, deadline), after_pause=self._check_verdict)


def _shape(clip: Clip) -> str:
    width, height = clip.size
    return f"{len(clip.frames)} frames of {width}x{height}"
