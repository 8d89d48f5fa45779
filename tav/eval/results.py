"""What a run of a suite leaves behind, and finds again when it is run once more.

    OUT/run.json                                                what the videos are made with; each run's command and machine
    OUT/videos/<method>/seed-<n>/<set>/<clip>/<edit>/00000.jpg  each `seed-<n>` in the LOVEU-TGVE layout
    OUT/records/<method>/seed-<n>/<set>/<clip>/<edit>.json      what was asked, how long it took, the scores

A video is there whole or not at all. Scores are always of the frames on disk.
"""

from __future__ import annotations

import os
import platform
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from tav.errors import InvalidConfig
from tav.eval.layout import read_frames, read_source, video_folder, write_frames
from tav.eval.scores import ScoreConfig, Scorer
from tav.eval.suite import Case, Suite
from tav.video import Frames, Video

_PACKAGES = ("tav", "torch", "diffusers", "transformers", "numpy", "opencv-python-headless")


class _Stored(BaseModel):
    model_config = ConfigDict(extra="ignore")


class Record(_Stored):
    """One video of a run."""

    method: str
    clip: str
    set: str
    edit: str
    category: str
    prompt: str
    seed: int
    fps: float | None = None
    seconds: float | None = Field(None, description="What making it took.")
    preparing_seconds: float = Field(0.0, description="What tuning and inversion took before, where they were not done yet.")
    scores: dict[str, float] | None = None
    scored_with: ScoreConfig | None = None


class Settings(_Stored):
    """What the videos of one folder have in common. A folder of other settings is not gone on with."""

    suite: str
    where: str = Field("local", description="`local`, or the service's address.")
    base: str
    base_fingerprint: str | None = Field(None, description="None: the service's to say; see the versions it registered.")
    precision: str | None = None
    clip: dict[str, Any] = Field(default_factory=dict, description="Over the base's settings of clips.")
    text_to_video: str | None = Field(None, description="What `cogvideox` samples.")
    overrides: dict[str, Any] = Field(default_factory=dict, description="Over the base's other settings: `tune.steps`, …")


class Visit(_Stored):
    """One run over the folder."""

    began: float
    command: str
    machine: dict[str, str]
    versions: dict[str, str]
    made: int = 0
    seconds: float = 0.0


class RunFile(_Stored):
    """`run.json`."""

    id: str = Field(default_factory=lambda: uuid.uuid4().hex)
    settings: Settings
    defaults: dict[str, Any] = Field(default_factory=dict, description="The base's recommended settings, overrides included.")
    visits: list[Visit] = Field(default_factory=list)


class Results:
    """The folder of a suite's runs.

    Args:
        out: made if it is not there.
        suite: whose cases it holds.
        submissions: folders of videos made elsewhere in the LOVEU-TGVE layout, by the name of their method.
    """

    def __init__(self, out: Path, suite: Suite, submissions: dict[str, Path] | None = None) -> None:
        self.out, self.suite, self.submissions = out, suite, submissions or {}

    def frames_folder(self, method: str, case: Case) -> Path:
        """Return where a video's frames lie."""
        if method in self.submissions:
            return video_folder(self.submissions[method], self.suite, case)
        return video_folder(self.out / "videos" / method / f"seed-{case.seed}", self.suite, case)

    def is_there(self, method: str, case: Case) -> bool:
        """Say whether a video was made already.

        Raises:
            InvalidConfig: it was made of another prompt.
        """
        folder = self.frames_folder(method, case)
        if not folder.is_dir():
            return False
        if (record := self.record(method, case)) and record.prompt != case.prompt:
            raise InvalidConfig(
                f"{folder} was made of {record.prompt!r}, the suite now asks {case.prompt!r}: delete that folder, "
                "or give another --out"
            )
        return True

    def keep(self, method: str, case: Case, video: Video, seconds: float | None = None, preparing: float = 0.0) -> None:
        """Write a video that was made; see `Record` for the rest."""
        about = {"fps": video.fps, "seconds": seconds, "preparing_seconds": preparing}
        self._write(method, case, self._blank(method, case).model_copy(update=about))
        write_frames(self.frames_folder(method, case), video.frames)

    def score(self, scorer: Scorer, method: str, case: Case) -> Record:
        """Return the record of a video that is there, scored now if it was not yet with these models."""
        record = self.record(method, case) or self._blank(method, case)
        if record.scores is not None and record.scored_with == scorer.config:
            return record
        frames = read_frames(self.frames_folder(method, case))
        source = self.source(case.clip, frames)
        scores = self.suite.judge(case, frames, source) | scorer.score(frames, case.prompt, source)
        scored = record.model_copy(update={"scores": scores, "scored_with": scorer.config})
        self._write(method, case, scored)
        return scored

    def score_all(self, videos: Sequence[tuple[str, Case]], scorer: Scorer) -> list[Record]:
        """Return the records of these videos, `(method, case)` each, scored where they were not yet.

        Raises:
            InvalidConfig: one is not there.
        """
        for method, case in videos:
            if not self.frames_folder(method, case).is_dir():
                raise InvalidConfig(
                    f"{method} has no video of {case.clip} {case.edit}: {self.frames_folder(method, case)} is not there"
                )
        return [self.score(scorer, method, case) for method, case in videos]

    def source(self, clip: str, frames: Frames) -> Frames:
        """Read the frames of a clip that a video was made from: as many and as large."""
        source = self.suite.clip(clip)
        return read_source(source.path, len(frames), (frames.shape[2], frames.shape[1]), source.options)

    def record(self, method: str, case: Case) -> Record | None:
        """Read what is known of a video, if anything."""
        path = self._record_path(method, case)
        return Record.model_validate_json(path.read_bytes()) if path.is_file() else None

    # -- run.json

    @contextmanager
    def visit(self, settings: Settings, defaults: dict[str, Any], command: str, machine: dict[str, str]) -> Iterator[Visit]:
        """Write this run into the run's file, whether or not it comes to its end.

        Args:
            settings: what the videos are made with.
            defaults: the base's recommended settings.
            command: as it was called.
            machine: what else is known of the machine, by name.

        Raises:
            InvalidConfig: the folder holds videos made with other settings.
        """
        path = self.out / "run.json"
        run = RunFile(settings=settings, defaults=defaults)
        if path.is_file():
            now, run = run, RunFile.model_validate_json(path.read_bytes())
            run.settings.text_to_video = run.settings.text_to_video or settings.text_to_video  # a method more
            now.settings.text_to_video = settings.text_to_video or run.settings.text_to_video  # or not asked for again
            ours, theirs = (each.settings.model_dump(mode="json") for each in (now, run))
            differing = [f"{name} {theirs[name]!r} (now {ours[name]!r})" for name in ours if ours[name] != theirs[name]]
            if not differing and now.model_dump(mode="json")["defaults"] != run.defaults:
                differing = [f"the base's recommended settings {run.defaults} (now {now.defaults})"]
            if differing:
                raise InvalidConfig(f"{self.out} holds videos made with {', '.join(differing)}: give another --out")
        about = {"system": platform.platform(), "processor": _processor(), "cpus": str(os.cpu_count())} | machine
        versions = {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES}
        visit = Visit(began=time.time(), command=command, machine=about, versions=versions)
        run.visits.append(visit)
        write_text(path, run.model_dump_json(indent=1))  # before the first video: it tells what all are made with
        try:
            yield visit
        finally:
            visit.seconds = time.time() - visit.began
            write_text(path, run.model_dump_json(indent=1))

    def run_file(self) -> RunFile:
        """Read what is stored of the runs.

        Raises:
            InvalidConfig: there was none.
        """
        path = self.out / "run.json"
        if not path.is_file():
            raise InvalidConfig(f"{self.out} holds no run of a suite: it has no run.json")
        return RunFile.model_validate_json(path.read_bytes())

    # -- records

    def _blank(self, method: str, case: Case) -> Record:
        return Record(
            method=method,
            clip=case.clip,
            set=self.suite.set_of(case.clip),
            edit=case.edit,
            category=case.category,
            prompt=case.prompt,
            seed=case.seed,
        )

    def _record_path(self, method: str, case: Case) -> Path:
        root = self.out / "records" / method / f"seed-{case.seed}"
        return video_folder(root, self.suite, case).with_name(f"{case.edit}.json")

    def _write(self, method: str, case: Case, record: Record) -> None:
        write_text(self._record_path(method, case), record.model_dump_json(indent=1))


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_text(text)
    part.replace(path)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
