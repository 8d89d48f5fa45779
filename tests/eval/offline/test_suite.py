"""The offline suites: what they ask, and that the oracle's scores tell right from wrong."""

import numpy as np
import pytest

from tav import Clip
from tav.eval.offline.clips import SCORED, draw_clip
from tav.eval.offline.suite import OfflineSuite, offline, offline_development
from tav.eval.suite import Case
from tav.video import Frames

SUITES = [offline(), offline_development()]


def case(suite: OfflineSuite, clip: str, edit: str) -> Case:
    return next(c for c in suite.cases if (c.clip, c.edit) == (clip, edit))


def shown(name: str, colour: str | None = None, shape: str | None = None, ground: str | None = None) -> Frames:
    """A scored clip as an edit of it should look."""
    c = SCORED[name]
    frames = draw_clip(colour or c.colour, shape or c.shape, ground or c.ground, c.motion, 8, 64, c.radius, c.seed)
    return np.ascontiguousarray(frames)


def test_the_offline_suite_has_six_clips_their_captions_and_four_edits_by_three_seeds() -> None:
    suite = offline()
    assert len(suite.clips) == 6
    assert len(suite.cases) == 6 * (1 + 4) * 3


@pytest.mark.parametrize("suite", SUITES, ids=lambda s: s.name)
def test_every_clip_is_there_and_reads(suite: OfflineSuite) -> None:
    for clip in suite.clips:
        assert Clip.read(clip.path, clip.caption, num_frames=8, size=(64, 64)).frames.shape == (8, 64, 64, 3)


@pytest.mark.parametrize("suite", SUITES, ids=lambda s: s.name)
def test_every_edit_changes_what_its_name_says(suite: OfflineSuite) -> None:
    for asked in suite.cases:
        drawn, words = suite.drawn[asked.clip], asked.prompt.split()
        for attribute, was in (("colour", drawn.colour), ("shape", drawn.shape), ("ground", drawn.ground)):
            assert (was in words) == (attribute not in asked.edit)


def test_a_right_edit_scores_full_and_keeps_the_path() -> None:
    suite, name = offline(), "red-ball-grass"
    source = shown(name)
    for edit, frames in {
        "source": source,
        "colour": shown(name, colour="blue"),
        "shape": shown(name, shape="box"),
        "ground": shown(name, ground="snow"),
        "colour+ground": shown(name, colour="blue", ground="snow"),
    }.items():
        scores = suite.judge(case(suite, name, edit), frames, source)
        assert (scores["edited"], scores["kept"]) == (1, 1), edit
        assert scores["path"] > 0.99, edit


def test_an_edit_that_did_nothing_keeps_everything_and_edits_nothing() -> None:
    suite, name = offline(), "red-ball-grass"
    source = shown(name)
    for edit in ("colour", "shape", "ground", "colour+ground"):
        scores = suite.judge(case(suite, name, edit), source, source)
        assert (scores["edited"], scores["kept"]) == (0, 1), edit


def test_half_an_edit_is_no_edit_and_a_changed_rest_is_not_kept() -> None:
    suite, name = offline(), "red-ball-grass"
    source, blue = shown(name), shown(name, colour="blue")
    assert suite.judge(case(suite, name, "colour+ground"), blue, source)["edited"] == 0
    assert suite.judge(case(suite, name, "shape"), blue, source)["kept"] == 0


def test_the_path_backwards_correlates_negatively_and_a_standing_object_not_at_all() -> None:
    suite, name = offline(), "orange-triangle-grass"
    source = shown(name)
    asked = case(suite, name, "source")
    assert suite.judge(asked, source[::-1].copy(), source)["path"] < -0.9
    assert abs(suite.judge(asked, np.repeat(source[:1], 8, axis=0), source)["path"]) < 0.01


def test_frames_that_blink_flicker_and_drift() -> None:
    suite, name = offline(), "blue-box-sand"
    source = shown(name)
    blinking = source.copy()
    blinking[1::2] = np.clip(blinking[1::2].astype(int) + 12, 0, 255)
    asked = case(suite, name, "source")
    still, blink = suite.judge(asked, source, source), suite.judge(asked, blinking, source)
    assert blink["flicker"] > still["flicker"] + 8
    assert blink["drift"] > still["drift"] + 3
