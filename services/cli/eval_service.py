"""Makes a suite's videos as jobs of the service: a tuning job for each clip, seed and kind of tuning, then its videos.

All jobs are handed in at once; the service tunes as many at a time as it has tuners. `OUT/jobs.json` keeps which job is whose,
so that a run that was stopped finds its jobs again.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tav.errors import InvalidConfig, TavError
from tav.eval.layout import FRAMES_FPS, read_frames, read_video
from tav.eval.methods import METHODS as LOCAL
from tav.eval.plan import Plan
from tav.eval.report import write_report
from tav.eval.results import Results, Settings, write_text
from tav.eval.scores import Scorer
from tav.eval.suite import Case, Suite
from tav.video import Video
from tav_client import Job, JobFailed, JobStatus, NotFound, TavClient, VideoFailed, schemas

Say = Callable[[str], object]


@dataclass(frozen=True)
class ServiceMethod:
    """A method as the service is asked for it."""

    tuning: dict[str, Any] = field(default_factory=dict)
    """Of the job's params."""
    sampling: dict[str, Any] = field(default_factory=dict)
    """Of the video."""


METHODS = {
    "tuned": ServiceMethod(),
    "no_st_attention": ServiceMethod(tuning={"attention": "frame"}),
    "no_inversion": ServiceMethod(sampling={"use_inverted_latents": False}),
}
"""Those of `tav.eval.methods` that jobs and videos can ask for. The others need the base itself: run them locally."""


def run_on_service(plan: Plan, client: TavClient, command: str, say: Say) -> Path:
    """Make what is missing, score it here, and write the report.

    Raises:
        InvalidConfig: a method or setting that the service does not offer, or `plan.out` holds other videos.
        TavError: jobs or videos failed; everything else is made, and stays.
        TavClientError: the service does not answer; what was made by then stays.
    """
    if unknown := set(plan.methods) - set(METHODS):
        raise InvalidConfig(f"the service does not offer {', '.join(sorted(unknown))}: run it with --local, or leave it out")
    suite = plan.load_suite()
    results = Results(plan.out, suite, plan.submissions)
    tuning, sampling = _split(plan.overrides)
    settings = Settings(
        suite=suite.name,
        where=client.base_url,
        base=plan.base or "the service's own",
        clip=plan.clip_options,
        overrides=plan.overrides,
    )
    names = [clip.name for clip in suite.clips]
    with results.visit(settings, {}, command, {"device": f"jobs of {client.base_url}; scored on {plan.device}"}) as visit:
        work = _Service(plan, suite, results, client, tuning, sampling, say)
        wanted = [
            (method, case)
            for name in names
            for method, case in plan.made_here(suite, name)
            if not results.is_there(method, case)
        ]
        for method, case in wanted:
            work.job(method, case)
        failures: list[str] = []
        for key in dict.fromkeys(work.key(method, case) for method, case in wanted):
            try:
                visit.made += work.make([(m, c) for m, c in wanted if work.key(m, c) == key])
            except (JobFailed, VideoFailed) as error:  # the others need not wait for it
                failures.append(str(error))
        if failures:
            raise TavError(
                f"{len(failures)} of the jobs failed, the rest is made; run it again to try them again: {failures[0]}"
            )
        results.score_all(plan.videos(suite, names), Scorer(plan.scores, plan.device))
    return write_report(results, plan.videos(suite, names), plan.about({name: LOCAL[name].about for name in plan.methods}))


class _Service:
    """The jobs of one run."""

    def __init__(
        self,
        plan: Plan,
        suite: Suite,
        results: Results,
        client: TavClient,
        tuning: dict[str, Any],
        sampling: dict[str, Any],
        say: Say,
    ) -> None:
        self.plan, self.suite, self.results, self.client, self.say = plan, suite, results, client, say
        self.tuning, self.sampling = tuning, sampling
        self.run_id = results.run_file().id
        self.kept = plan.out / "jobs.json"
        self.ids: dict[str, list[str]] = json.loads(self.kept.read_text()) if self.kept.is_file() else {}
        """Job ids by key, all tries; the last counts."""
        self.jobs: dict[str, Job] = {}

    def params(self, method: str, case: Case) -> dict[str, Any]:
        """How the clip of a case is tuned for a method."""
        options = dict(self.suite.clip(case.clip).options)
        named = {"start": "frame_start", "stride": "frame_stride"}
        clip = {named.get(name, name): value for name, value in options.items()}
        return clip | self.tuning | METHODS[method].tuning | {"seed": case.seed}

    def key(self, method: str, case: Case) -> str:
        """Names a tuning: cases and methods with one key share a job."""
        params = json.dumps(self.params(method, case), sort_keys=True)
        return f"{case.clip}-{hashlib.sha256(params.encode()).hexdigest()[:12]}"

    def job(self, method: str, case: Case) -> Job:
        """The job of a case: found again, or handed in."""
        key = self.key(method, case)
        if key in self.jobs:
            return self.jobs[key]
        tries = self.ids.setdefault(key, [])
        if tries and (job := self._found(tries[-1])):
            self.jobs[key] = job
            return job
        clip = self.suite.clip(case.clip)
        with tempfile.TemporaryDirectory() as scratch:
            source = clip.path
            if source.is_dir():
                source = Path(scratch) / "source.mp4"
                Video(read_frames(clip.path), FRAMES_FPS).save(source)
            job = self.client.jobs.create(
                source,
                caption=clip.caption,
                model=re.sub(r"[^a-z0-9]+", "-", f"eval-{self.suite.name}-{clip.name}".lower()).strip("-"),
                base=self.plan.base or None,
                params=self.params(method, case),
                metadata={"suite": self.suite.name, "clip": clip.name},
                idempotency_key=f"{self.run_id}-{key}-{len(tries)}",
            )
        tries.append(job.id)
        write_text(self.kept, json.dumps(self.ids, indent=1))
        self.jobs[key] = job
        return job

    def make(self, wanted: list[tuple[str, Case]]) -> int:
        """The videos of one job, once it has succeeded."""
        job = self.job(*wanted[0])
        self.say(f"{wanted[0][1].clip} seed {wanted[0][1].seed}: job {job.id}")
        job.wait()
        asked = [
            self.client.videos.create(
                model=job.model_ref,
                prompt=case.prompt,
                seed=case.seed,
                **self.sampling | METHODS[method].sampling,
                idempotency_key=f"{self.run_id}-{job.id}-{method}-{case.edit}",
            )
            for method, case in wanted
        ]
        for (method, case), video in zip(wanted, asked, strict=True):
            with tempfile.TemporaryDirectory() as scratch:
                path = video.save(Path(scratch) / "video.mp4")
                frames = read_video(path)
            self.results.keep(method, case, Video(frames, _rate(video.snapshot, len(frames))))
            self.say(f"{case.clip} {case.edit} seed {case.seed} {method}")
        return len(wanted)

    def _found(self, id: str) -> Job | None:
        """A job of an earlier run, if it can still be gone on with."""
        try:
            job = self.client.jobs.get(id)
        except NotFound:
            return None
        return None if job.status in (JobStatus.failed, JobStatus.cancelled) else job


def _rate(video: schemas.Video, num_frames: int) -> float:
    seconds = float(video.seconds or 0)
    return num_frames / seconds if seconds else FRAMES_FPS


def _split(overrides: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """`tune.*` and `net.*` as a job's params, `sample.*` as a video's fields."""
    tuning: dict[str, Any] = {}
    sampling: dict[str, Any] = {}
    for name, value in overrides.items():
        part, _, key = name.partition(".")
        target, offered = (sampling, schemas.VideoCreate) if part == "sample" else (tuning, schemas.TuningParams)
        if part not in ("tune", "net", "sample") or key not in offered.model_fields:
            raise InvalidConfig(f"the service does not offer the setting {name}: run with --local, or leave it out")
        target[key] = value
    return tuning, sampling
