"""The drawn world: its combinations, its captions, its clips."""

from pathlib import Path

import av
import numpy as np
import pytest

from tav.eval.offline.clips import DEVELOPMENT, MOTIONS, SCORED, VIDEOS, draw_clip, write_mp4
from tav.eval.offline.oracle import read, read_clip
from tav.eval.offline.world import COLOURS, GROUNDS, SHAPES, caption, combinations, draw, held_out, random_scene

EXAMPLES = Path(__file__).parents[3] / "examples" / "clips"


def test_a_tenth_of_the_combinations_is_held_out_and_each_part_is_still_seen() -> None:
    apart, every = set(held_out()), combinations()
    assert 0.08 <= len(apart) / len(every) <= 0.12
    seen = [c for c in every if c not in apart]
    for place, names in enumerate((COLOURS, SHAPES, GROUNDS)):
        assert {c[place] for c in seen} == set(names)
        assert {c[place] for c in apart} == set(names)


def test_the_same_scene_is_the_same_picture() -> None:
    one, other = (random_scene(np.random.default_rng(4)) for _ in range(2))
    assert one == other
    assert (draw(one) == draw(other)).all()


def test_captions_take_the_right_article() -> None:
    assert caption("orange", "star", "sand") == "an orange star on sand"
    assert caption("red", "ball", "grass") == "a red ball on grass"


@pytest.mark.parametrize("motion", MOTIONS)
def test_a_clip_moves_its_object_by_twenty_pixels_and_nothing_else(motion: str) -> None:
    got = read_clip(draw_clip("red", "ball", "grass", motion, num_frames=8, size=64))
    assert {(g.colour, g.shape, g.ground) for g in got} == {("red", "ball", "grass")}
    centres = np.array([g.centroid for g in got]) * 64
    assert np.linalg.norm(np.ptp(centres, axis=0)) >= 20


def test_a_written_clip_reads_back(tmp_path: Path) -> None:
    frames = draw_clip("blue", "box", "snow", num_frames=6, size=128)
    write_mp4(frames, tmp_path / "clip.mp4")
    with av.open(str(tmp_path / "clip.mp4")) as container:
        assert container.streams.video[0].codec_context.name == "h264"
        back = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(back) == len(frames)
    assert np.abs(np.stack(back).astype(int) - frames).mean() < 6


@pytest.mark.parametrize(("folder", "name"), [(VIDEOS, n) for n in SCORED] + [(VIDEOS / "development", n) for n in DEVELOPMENT])
def test_the_shipped_clips_show_what_their_captions_say(folder: Path, name: str) -> None:
    said = (folder / f"{name}.txt").read_text()
    with av.open(str(folder / f"{name}.mp4")) as container:
        got = read(next(container.decode(video=0)).to_ndarray(format="rgb24"))
    assert all(word in said for word in (got.colour or "-", got.shape or "-", got.ground))


def test_the_examples_are_the_scored_clips() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.mp4")} == set(SCORED)


def test_no_scored_clip_is_among_those_that_settings_are_chosen_on() -> None:
    assert not {(c.colour, c.shape, c.ground) for c in SCORED.values()} & {
        (c.colour, c.shape, c.ground) for c in DEVELOPMENT.values()
    }
