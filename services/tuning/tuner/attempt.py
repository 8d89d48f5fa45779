"""One attempt at one job: prepare, tune, invert, validate, register."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from registry.errors import StorageUnavailable
from registry.jobs import JobStore
from registry.objects import ObjectStore
from registry.registration import VersionInfo
from registry.versions import VersionStore
from services import logs
from services.scratch import Scratch
from services.settings import Settings
from services.tuning.messages import Lease, Outcome, Verdict
from services.tuning.tuner.checkpoints import CheckpointStore
from services.tuning.tuner.control import AttemptStopped, Control, NodePreempted
from services.tuning.tuner.failures import lost_its_cluster, outcome_of
from services.tuning.tuner.job_log import JobLog
from services.tuning.tuner.memory import tune
from services.tuning.tuner.ranks import Ranks, RanksApart
from services.tuning.tuner.reporter import Reporter
from services.tuning.tuner.results import Results
from services.tuning.tuner.warm_tuner import WarmTuner
from tav import Clip, Delta, Latents, Video
from tav.config import ClipConfig
from tav.errors import InvalidConfig
from tav.eval.scores import Scorer, as_metrics
from tav.prompts import refusal, texts_of
from tav.tuning import TuneState
from tav_client.schemas import JobPhase

log = logging.getLogger(__name__)


class Attempt:
    """An attempt, on every rank of a tuner; the leader inverts, validates, registers and speaks for all.

    Args:
        lease: the job, and which attempt at it this is.
        warm: this rank's tuner.
        settings: the service's.
        scheduler: the actor's handle.
        ranks: the tuner's processes.
        scorer: scores the validation samples; the leader has one.
    """

    def __init__(
        self, lease: Lease, warm: WarmTuner, settings: Settings, scheduler: Any, ranks: Ranks, scorer: Scorer | None
    ) -> None:
        self.job, self.number = lease.job, lease.attempt
        self.warm, self.settings, self.ranks, self.scorer = warm, settings, ranks, scorer
        self.objects = ObjectStore(settings)
        self.store, self.versions = JobStore(settings, self.objects), VersionStore(settings, self.objects)
        self.checkpoints = CheckpointStore(self.objects, self.job.id)
        self.job_log = JobLog(f"attempt {self.number} at job {self.job.id} begins")
        self.report = Reporter(lease, scheduler, self.store, self.job_log)
        self.control = Control(self.job, settings, ranks, self.report, self.checkpoints)
        self.results = Results(warm, self.control, self.store)
        self.scratch: Scratch | None = None

    def run(self) -> None:
        """Work on the job and tell the scheduler how it ended.

        Raises:
            RanksApart: the tuner's ranks cannot go on together; the scheduler has been told what failed.
            RayError: the tuner has lost its cluster; the scheduler will hear of that from Ray.
        """
        with logs.about(**logs.about_job(self.job)), self.job_log:
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
            if self.ranks.leader:
                if outcome is not None and outcome.last:
                    self._delete_checkpoint()
                self.report.end(outcome)

    def _outcome(self) -> Outcome | None:
        """Work on the job; return what to tell the scheduler, or None when the attempt is not this tuner's any more."""
        try:
            version = self._work()
            log.info("the job has succeeded")
            return Outcome(version=version)
        except RanksApart:
            raise
        except AttemptStopped:
            if self.report.verdict is Verdict.cancel:
                log.info("stopped, as asked")
                return Outcome()
            log.warning("job %s attempt %d is no longer this tuner's", self.job.id, self.number)
            return None
        except NodePreempted:
            return Outcome(handed_back=True)
        except Exception as error:
            if lost_its_cluster(error):
                raise
            # A defect fails this job with its traceback, not the tuner.
            outcome = outcome_of(error)
            log.error("%s", outcome.traceback or (outcome.failure.message if outcome.failure else f"stopped: {error}"))
            return outcome

    def _work(self) -> int | None:
        """Return the version, on the leader."""
        base, params, ranks = self.warm.base, self.job.params, self.ranks
        clip_config = base.clip_config(
            num_frames=params.num_frames, size=params.size, start=params.frame_start, stride=params.frame_stride
        )
        tune_config = base.tune_config(steps=params.steps, learning_rate=params.learning_rate, seed=params.seed)
        self.report.plan(base, tune_config.steps, len(self.job.validation_prompts))
        if (version := ranks.from_leader(ranks.together(self._registered_version))) is not None:
            return version
        caption = self.job.caption or ranks.from_leader(ranks.together(self._caption_clip))
        ranks.together(lambda: self._check_texts(caption))
        clip, resume = ranks.together(lambda: self._prepare(caption, clip_config))
        if resume is not None:
            log.info("goes on after step %d", resume.step)
        delta = tune(self.warm, self.control, clip, tune_config, resume)
        if not ranks.leader:
            return None
        latents, samples = self.results.invert_and_sample(clip, delta)
        self.results.show("source", clip.video())
        if samples and self.scorer is not None:
            prompts_and_frames = zip(self.job.validation_prompts, (video.frames for video in samples), strict=True)
            self.report.scores(as_metrics(self.scorer, list(prompts_and_frames), clip.frames), tune_config.steps)
        return self._register(clip, delta, latents, samples)

    def _registered_version(self) -> int | None:
        """Return the version that an earlier attempt registered before it was lost, on the leader."""
        if not self.ranks.leader or self.number == 1:
            return None
        version = self.control.retry(lambda: self.versions.of_job(self.job.id))
        return None if version is None else version.version

    def _caption_clip(self) -> str:
        """Caption a clip that came without a caption, and keep the caption with the job; the leader's work."""
        if not self.ranks.leader:
            return ""
        from tav.caption import Captioner

        if self.settings.captioner is None:
            raise InvalidConfig("the clip has no caption, and the service no captioner any more: submit it again with one")
        self.control.begin(JobPhase.preparing)
        captioner = Captioner(self.settings.captioner, self.warm.base.device)
        caption = captioner.caption_clip(self._source(), self.settings.clip_limits)
        log.info("captioned by %s: %s", self.settings.captioner, caption)
        self.control.retry(lambda: self.store.set_caption(self.job.id, caption))
        self.report.caption = caption
        return caption

    def _check_texts(self, caption: str) -> None:
        """Report what of the job's texts the base does not read, or refuse the job; the leader's work."""
        if not self.ranks.leader:
            return
        unread = self.warm.base.reader.unread_of(texts_of(caption, self.job.validation_prompts))
        for name, end in unread.items():
            log.warning("the base does not read the end of %s, which is too long for it: %r", name, end)
        if self.job.truncate == "error" and (error := refusal(unread)):
            raise error
        if unread != self.job.unread:
            self.control.retry(lambda: self.store.set_unread(self.job.id, unread))
        self.report.unread = unread

    def _prepare(self, caption: str, c: ClipConfig) -> tuple[Clip, TuneState | None]:
        """Return the decoded clip, and the checkpoint of an earlier attempt."""
        self.control.begin(JobPhase.preparing)
        clip = Clip.read(self._source(), caption, c.num_frames, c.size, c.start, c.stride, self.settings.clip_limits)
        clip.caption_source = self.job.caption_source
        return clip, self.control.retry(self.checkpoints.load)

    def _source(self) -> Path:
        """Return the clip's file, fetched once."""
        return self.control.retry(self._fetch)

    def _fetch(self) -> Path:
        self.scratch = self.scratch or Scratch(self.settings.work_dir, "job")
        path = self.scratch.path / "source.mp4"
        return path if path.is_file() else self.objects.get_file(self.job.clip.uri, path, self.job.clip.sha256)

    def _register(self, clip: Clip, delta: Delta, latents: Latents, samples: list[Video]) -> int:
        self.control.begin(JobPhase.registering)
        assert self.scratch is not None  # the clip is in it
        folder = self.scratch.path / "version"
        self.control.retry(lambda: self.results.write_version(folder, clip, delta, latents, samples))
        info = VersionInfo.of(delta)
        version = self.control.retry(lambda: self.versions.register(self.job, folder, info, before=self._check_before_version))
        log.info("registered as %s/%d", version.name, version.version)
        return version.version

    def _check_before_version(self) -> None:
        """Ask for the last time whether to go on: after this the version exists.

        Raises:
            AttemptStopped: the job is to stop.
            NotFound: a user has deleted the job's run, of which the scheduler need not know yet.
        """
        self.control.check()
        self.store.get(self.job.id)

    def _delete_checkpoint(self) -> None:
        try:
            self.control.retry(self.checkpoints.delete)
        except (StorageUnavailable, AttemptStopped) as error:
            log.warning("the checkpoint is left behind: %s", error)
