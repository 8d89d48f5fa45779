"""Quality end to end, reduced: one clip through tuning, inversion and its edits, judged by the oracle.

The whole table: `make quality`, kept in benchmarks/results/.
"""

import os
from collections.abc import Iterator
from statistics import fmean

import pytest
import torch

from benchmarks.quality import Score, run_clip
from tav import Base, Sampler, Tuner

pytestmark = pytest.mark.slow

EDITS = ("colour", "shape", "ground", "colour+ground")


@pytest.fixture(scope="module")
def scores() -> Iterator[dict[tuple[str, str], Score]]:
    threads = torch.get_num_threads()
    torch.set_num_threads(os.cpu_count() or 1)
    base = Base.load("offline")
    tuner = Tuner(base, config=base.tune_config())
    scores, _ = run_clip(base, tuner, Sampler(base), "red-ball-grass", ["tuned", "no_inversion"])
    yield {(s.method, s.edit): s for s in scores}
    torch.set_num_threads(threads)


def test_the_source_prompt_gives_the_clip_back(scores: dict[tuple[str, str], Score]) -> None:
    source = scores["tuned", "source"]
    assert source.path >= 0.95
    assert source.edited >= 0.85


@pytest.mark.parametrize(("edit", "right"), [("colour", 0.85), ("ground", 0.85), ("shape", 0.6)])
def test_edits_do_what_they_say_and_keep_the_motion(scores: dict[tuple[str, str], Score], edit: str, right: float) -> None:
    score = scores["tuned", edit]
    assert score.edited >= right
    assert score.kept >= 0.85
    assert score.path >= 0.8


def test_on_average_the_edits_follow_the_clips_path(scores: dict[tuple[str, str], Score]) -> None:
    assert fmean(scores["tuned", edit].path for edit in EDITS) >= 0.9


def test_without_inversion_the_motion_is_lost(scores: dict[tuple[str, str], Score]) -> None:
    tuned, free = (fmean(scores[method, edit].path for edit in EDITS) for method in ("tuned", "no_inversion"))
    assert free < tuned - 0.3
