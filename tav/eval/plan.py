"""What a run of a suite does, and the suites there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tav.errors import InvalidConfig
from tav.eval.layout import read_suite
from tav.eval.scores import ScoreConfig
from tav.eval.suite import Case, Suite


@dataclass(frozen=True)
class Plan:
    """What to run. Plain values: worker processes rebuild everything from it."""

    suite: str
    """`offline`, `offline-development`, or a folder."""
    out: Path
    methods: Sequence[str] = ("tuned",)
    seeds: Sequence[int] | None = None
    """None: the suite's own."""
    clips: Sequence[str] = ()
    edits: Sequence[str] = ()
    clip_options: dict[str, Any] = field(default_factory=dict)
    """num_frames, size, start, stride, for every clip."""
    submissions: dict[str, Path] = field(default_factory=dict)
    """Folders of videos made elsewhere, by the name to give them."""
    scores: ScoreConfig = field(default_factory=ScoreConfig)
    text_to_video: str | None = None
    """Hub id or folder of the model that the method `cogvideox` samples."""
    base: str = "offline"
    overrides: dict[str, Any] = field(default_factory=dict)
    """Over the base's recommended settings, as `tune.steps`."""
    device: str = "cpu"
    dtype: Literal["fp32", "bf16", "fp16"] = "fp32"
    threads: int | None = None
    """Of each process; None: torch's choice."""
    processes: int = 1
    """Clips at a time."""

    def load_suite(self) -> Suite:
        """Load the suite, cut down to the clips and edits of the plan.

        Raises:
            InvalidConfig: no such suite, clip or edit; or a method lacks its model.
        """
        if "cogvideox" in self.methods and not self.text_to_video:
            raise InvalidConfig(
                "cogvideox needs a text-to-video model: name one with --t2v-model, such as zai-org/CogVideoX-2b"
            )
        return load_suite(self.suite, self.seeds, self.clip_options, self.clips).only(self.clips, self.edits)

    def about(self, methods: Mapping[str, str]) -> dict[str, str]:
        """Describe everything that is compared in a sentence each, given those on the methods."""
        return dict(methods) | {name: f"Videos made elsewhere, from {folder}." for name, folder in self.submissions.items()}

    def made_here(self, suite: Suite, clip: str) -> list[tuple[str, Case]]:
        """Pair each method's name with each case of a clip, cases of one seed together."""
        cases = sorted((case for case in suite.cases if case.clip == clip), key=lambda case: case.seed)
        seeds = dict.fromkeys(case.seed for case in cases)
        return [(method, case) for seed in seeds for method in self.methods for case in cases if case.seed == seed]

    def videos(self, suite: Suite, clips: Sequence[str]) -> list[tuple[str, Case]]:
        """List everything that is scored of some clips: each method's name with each case. Submissions know no seeds."""
        cases = [case for case in suite.cases if case.clip in clips]
        first = min((case.seed for case in cases), default=0)
        submitted = [(name, case) for name in self.submissions for case in cases if case.seed == first]
        return [(method, case) for method in self.methods for case in cases] + submitted


def load_suite(
    name: str, seeds: Sequence[int] | None = None, options: dict[str, Any] | None = None, clips: Sequence[str] = ()
) -> Suite:
    """Load a built-in suite by its name, or one from a folder in the LOVEU-TGVE layout.

    Raises:
        InvalidConfig: no such suite.
    """
    if name in ("offline", "offline-development"):
        from tav.eval.offline.suite import offline, offline_development

        make = offline if name == "offline" else offline_development
        if options:
            raise InvalidConfig(f"suite {name} has frames and size of its own: leave --num-frames and --size out")
        return make() if seeds is None else make(seeds)
    folder = Path(name)
    if not folder.is_dir():
        raise InvalidConfig(f"no suite {name!r}: give 'offline', or a folder in the LOVEU-TGVE layout")
    return read_suite(folder, (0,) if seeds is None else seeds, options, clips)
