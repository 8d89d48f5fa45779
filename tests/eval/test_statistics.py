"""Means and intervals of known samples."""

import numpy as np
import pytest

from tav.eval.results import Record
from tav.eval.statistics import ALL_EDITS, differences, estimate, table
from tav.eval.suite import Measure

UP, DOWN = Measure("up", "higher", "Goes up."), Measure("down", "lower", "Goes down.")


def record(method: str, clip: str, category: str, seed: int = 0, **scores: float) -> Record:
    return Record(
        method=method, clip=clip, set="s", edit=category, category=category, prompt="p", seed=seed, scores=scores or None
    )


def test_the_mean_is_over_videos_and_the_worst_goes_by_direction() -> None:
    values = [("a", 1.0), ("a", 2.0), ("b", 6.0)]
    assert (estimate(values).mean, estimate(values).worst, estimate(values, "lower").worst) == (3, 1, 6)
    assert (estimate(values).videos, estimate(values).clips) == (3, 2)


def test_one_clip_has_no_interval_however_many_its_videos() -> None:
    assert estimate([("a", 0.0), ("a", 1.0)]).low is None


def test_the_interval_is_that_of_the_mean_of_clips() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(5, 2, 200)
    found = estimate([(f"clip {i}", float(x)) for i, x in enumerate(scores)])
    half = 1.96 * scores.std() / np.sqrt(len(scores))
    assert found.low == pytest.approx(scores.mean() - half, abs=0.06)
    assert found.high == pytest.approx(scores.mean() + half, abs=0.06)


def test_more_videos_of_the_same_clips_make_it_no_surer() -> None:
    values = [(clip, float(x)) for clip, x in zip("abcdef", (1, 2, 3, 5, 8, 13), strict=True)]
    once, often = estimate(values), estimate(values * 10)
    assert (once.low, once.high) == pytest.approx((often.low, often.high))


def test_an_interval_is_the_same_every_time() -> None:
    values = [(clip, float(ord(clip) % 7)) for clip in "abcdefgh"]
    assert estimate(values) == estimate(values)


def test_the_overall_row_leaves_the_clips_own_captions_out() -> None:
    records = [record("m", "a", "source", up=0), record("m", "a", "style", up=1), record("m", "b", "object", up=3)]
    means = table(records, [UP, DOWN])["m"]
    assert {name: found["up"].mean for name, found in means.items()} == {"source": 0, "style": 1, "object": 3, ALL_EDITS: 2}
    assert "down" not in means["style"]


def test_differences_are_taken_case_by_case() -> None:
    records = [record("old", c, "style", s, up=x) for c, s, x in (("a", 0, 1), ("a", 1, 9), ("b", 0, 5))]
    records += [record("new", c, "style", s, up=x) for c, s, x in (("a", 0, 3), ("b", 0, 7), ("c", 0, 99))]
    found = differences(records, [UP], "old")
    assert list(found) == ["new"]
    better = found["new"][ALL_EDITS]["up"]
    assert (better.mean, better.low, better.high, better.videos) == (2, 2, 2, 2)
