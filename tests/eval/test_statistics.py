"""Means and intervals of known samples."""

import numpy as np
import pytest
import scipy.stats

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


@pytest.mark.parametrize(
    ("clips", "draw"), [(2, "normal"), (4, "normal"), (6, "normal"), (6, "uniform"), (12, "uniform"), (29, "normal")]
)
@pytest.mark.parametrize("even", [True, False])
def test_the_interval_of_few_clips_covers_the_true_mean_as_often_as_it_says(clips: int, draw: str, even: bool) -> None:
    rng = np.random.default_rng(clips)
    covered, trials = 0, 400
    for _ in range(trials):
        of_clips = getattr(rng, draw)(size=clips) - (0.5 if draw == "uniform" else 0)
        videos = [3] * clips if even else rng.integers(2, 5, clips)  # an edit's video may be missing
        values = [(f"{i}", float(x + 0.1 * rng.normal())) for i, x in enumerate(of_clips) for _ in range(videos[i])]
        found = estimate(values)
        assert found.low is not None and found.high is not None
        covered += found.low <= 0 <= found.high
    assert covered / trials > 0.92  # a bootstrap's 6 clips: 0.86


def test_the_interval_of_one_video_a_clip_is_students() -> None:
    scores = [1.0, 2.0, 4.0, 8.0, 9.0]
    wanted = scipy.stats.t.interval(0.95, 4, loc=np.mean(scores), scale=scipy.stats.sem(scores))
    found = estimate([(str(i), x) for i, x in enumerate(scores)])
    assert (found.low, found.high) == pytest.approx(wanted)


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
