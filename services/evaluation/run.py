"""A run of an evaluation on the service: a tuning job for each clip, seed and kind of tuning, then its videos.

All jobs are submitted at once; the service tunes as many at a time as it has tuners. `OUT/jobs.json` keeps the ids of the jobs,
so that a run that was stopped finds them again.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from services.evaluation.methods import METHODS, ServiceMethod, check_methods, request_fields
from tav.errors import TavError
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


def run_on_service(plan: Plan, client: TavClient, command: str, say: Say) -> Path:
    """Make the missing videos on the service, score all of them here, and write the report.

    Args:
        plan: what to make and where.
        client: of the service.
        command: the command line, for the report.
        say: called with a line per job and video.

    Returns:
        The report's path.

    Raises:
        InvalidConfig: the service does not offer a method or setting, or `plan.out` holds other videos.
        TavError: jobs or videos failed; everything else is made, and stays.
        TavClientError: the service does not answer; what was made by then stays.
    """
    check_methods(plan.methods)
    suite = plan.load_suite()
    results = Results(plan.out, suite, plan.submissions)
    fields = request_fields(plan.overrides)
    settings = Settings(
        suite=suite.name,
        where=client.base_url,
        base=plan.base or "the service's own",
        clip=plan.clip_options,
        overrides=plan.overrides,
    )
    names = [clip.name for clip in suite.clips]
    with results.visit(settings, {}, command, {"device": f"jobs of {client.base_url}; scored on {plan.device}"}) as visit:
        jobs = _Jobs(plan, suite, results, client, fields, say)
        missing = [
            (method, case)
            for name in names
            for method, case in plan.made_here(suite, name)
            if not results.is_there(method, case)
        ]
        by_job: dict[str, list[tuple[str, Case]]] = {}
        for method, case in missing:
            jobs.submit(method, case)
            by_job.setdefault(jobs.key(method, case), []).append((method, case))
        failures: list[str] = []
        for cases in by_job.values():
            try:
                visit.made += jobs.make_videos(cases)
            except (JobFailed, VideoFailed) as error:  # the others go on
                failures.append(str(error))
        if failures:
            raise TavError(
                f"{len(failures)} of the jobs failed, the rest is made; run it again to try them again: {failures[0]}"
            )
        results.score_all(plan.videos(suite, names), Scorer(plan.scores, plan.device))
    return write_report(results, plan.videos(suite, names), plan.about({name: LOCAL[name].about for name in plan.methods}))


class _Jobs:
    """The tuning jobs of one run, and the videos of each."""

    def __init__(self, plan: Plan, suite: Suite, results: Results, client: TavClient, fields: ServiceMethod, say: Say) -> None:
        self.plan, self.suite, self.results, self.client, self.say = plan, suite, results, client, say
        self.fields = fields
        """Of every request, whatever the method."""
        self.run_id = results.run_file().id
        self.file = plan.out / "jobs.json"
        self.ids: dict[str, list[str]] = json.loads(self.file.read_text()) if self.file.is_file() else {}
        """Job ids by key, one for each attempt; the last counts."""
        self.jobs: dict[str, Job] = {}

    def params(self, method: str, case: Case) -> dict[str, Any]:
        """Return how the clip of a case is tuned for a method, as a job's `params`."""
        fields = {"start": "frame_start", "stride": "frame_stride"}
        clip = {fields.get(name, name): value for name, value in dict(self.suite.clip(case.clip).options).items()}
        return clip | self.fields.tuning | METHODS[method].tuning | {"seed": case.seed}

    def key(self, method: str, case: Case) -> str:
        """Return the name of a tuning: cases and methods with the same key share a job."""
        params = json.dumps(self.params(method, case), sort_keys=True)
        return f"{case.clip}-{hashlib.sha256(params.encode()).hexdigest()[:12]}"

    def submit(self, method: str, case: Case) -> Job:
        """Return the job of a case: an earlier one that has not failed, or a new one."""
        key = self.key(method, case)
        if key in self.jobs:
            return self.jobs[key]
        ids = self.ids.setdefault(key, [])
        if ids and (job := self._earlier(ids[-1])):
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
                idempotency_key=f"{self.run_id}-{key}-{len(ids)}",
            )
        ids.append(job.id)
        write_text(self.file, json.dumps(self.ids, indent=1))
        self.jobs[key] = job
        return job

    def make_videos(self, cases: list[tuple[str, Case]]) -> int:
        """Make the videos of cases that share a job, once it has succeeded; return how many."""
        job = self.submit(*cases[0])
        self.say(f"{cases[0][1].clip} seed {cases[0][1].seed}: job {job.id}")
        job.wait()
        videos = [
            self.client.videos.create(
                model=job.model_ref,
                prompt=case.prompt,
                seed=case.seed,
                **self.fields.sampling | METHODS[method].sampling,
                idempotency_key=f"{self.run_id}-{job.id}-{method}-{case.edit}",
            )
            for method, case in cases
        ]
        for (method, case), video in zip(cases, videos, strict=True):
            with tempfile.TemporaryDirectory() as scratch:
                path = video.save(Path(scratch) / "video.mp4")
                frames = read_video(path)
            self.results.keep(method, case, Video(frames, _frame_rate(video.snapshot, len(frames))))
            self.say(f"{case.clip} {case.edit} seed {case.seed} {method}")
        return len(cases)

    def _earlier(self, id: str) -> Job | None:
        """Return a job of an earlier run, unless it is gone, failed or was cancelled."""
        try:
            job = self.client.jobs.get(id)
        except NotFound:
            return None
        return None if job.status in (JobStatus.failed, JobStatus.cancelled) else job


def _frame_rate(video: schemas.Video, num_frames: int) -> float:
    seconds = float(video.seconds or 0)
    return num_frames / seconds if seconds else FRAMES_FPS
