"""Quality end to end, reduced: one clip through tuning, inversion and its edits, judged by the oracle.

The whole table: `make quality`, kept in benchmarks/results/.
"""

from collections.abc import Iterator
from statistics import fmean

import pytest
import torch

from benchmarks.quality import BARS, WORST_PATH
from tav import Base
from tav.eval.methods import METHODS, Workbench
from tav.eval.offline.suite import offline

CLIP, SEED = "red-ball-grass", 0
EDITS = ("colour", "shape", "ground", "colour+ground")
FRAME = 1 / 8
"""The bars are for means over clips; a single video may have one frame wrong."""

CLIP_MEAN_PATH = 0.9
"""Of this clip, whose colour edits are among the harder ones (0.94 in benchmarks/results/quality.json)."""

Scores = dict[tuple[str, str], dict[str, float]]


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scores]:
    """One clip, one seed, made now."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the published figures
    suite, bench = offline([SEED]), Workbench(Base.load("offline"), tmp_path_factory.mktemp("made"))
    clip = suite.clip(CLIP)
    yield {
        (method, case.edit): suite.judge(case, METHODS[method].sample(bench, clip, case).frames, bench.clip(clip).frames)
        for method in ("tuned", "no_inversion")
        for case in suite.cases
        if case.clip == CLIP and (method == "tuned" or case.edit in EDITS)
    }
    torch.set_num_threads(threads)


@pytest.mark.slow
def test_the_source_prompt_gives_the_clip_back(scores: Scores) -> None:
    assert scores["tuned", "source"]["path"] >= 0.95
    assert scores["tuned", "source"]["edited"] >= 0.85


@pytest.mark.slow
@pytest.mark.parametrize("edit", EDITS)
def test_edits_do_what_they_say_and_keep_the_motion(scores: Scores, edit: str) -> None:
    score = scores["tuned", edit]
    assert score["edited"] >= BARS[edit]["edited"] - FRAME
    assert score["kept"] >= BARS[edit]["kept"] - FRAME
    assert score["path"] >= WORST_PATH


@pytest.mark.slow
def test_on_average_the_edits_follow_the_clips_path(scores: Scores) -> None:
    assert fmean(scores["tuned", edit]["path"] for edit in EDITS) >= CLIP_MEAN_PATH


@pytest.mark.slow
def test_without_inversion_the_motion_is_lost(scores: Scores) -> None:
    tuned, free = (fmean(scores[method, edit]["path"] for edit in EDITS) for method in ("tuned", "no_inversion"))
    assert free < tuned - 0.3
