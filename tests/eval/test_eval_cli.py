"""`tav eval` from a shell."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tav import Video
from tav.eval.layout import write_frames
from tav_client.cli import _app
from tests.eval.conftest import pan, texture


def tav(*words: object) -> Result:
    return CliRunner().invoke(_app.app, ["eval", *map(str, words)])


@pytest.fixture
def two_videos(tmp_path: Path) -> list[Path]:
    """A file that moves right, and a folder of frames that moves down."""
    Video(pan(texture(), 2, 0), 8).save(tmp_path / "right.mp4")
    write_frames(tmp_path / "down", pan(texture(), 0, 2))
    return [tmp_path / "right.mp4", tmp_path / "down"]


def test_any_videos_are_scored_against_a_source_and_a_prompt(two_videos: list[Path], clip_model: Path) -> None:
    right, down = two_videos
    words = ["videos", right, down, "--source", right, "--prompt", "a picture", "--clip-model", clip_model, "--json"]
    answers = json.loads(tav(*words).stdout)
    assert [answer["video"] for answer in answers] == [str(right), str(down)]
    same, other = (answer["scores"] for answer in answers)
    assert set(same) == {"frame_consistency", "textual_faithfulness", "warping_error", "flow_agreement"}
    assert same["flow_agreement"] > 0.99
    assert other["flow_agreement"] < 0.2


def test_without_models_the_table_has_no_column_of_theirs(two_videos: list[Path]) -> None:
    result = tav("videos", *two_videos, "--prompt", "a", "--prompt", "b")
    header, *rows = result.stdout.splitlines()
    assert header.split() == ["video", "warping_error", "↓"]
    assert len(rows) == 2


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--prompt", "a", "--prompt", "b", "--prompt", "c"], "--prompt is given 3 times for 2 videos"),
        (["--clip-model", "/nowhere/at-all"], "no model '/nowhere/at-all' to score with: give a hub id"),
        (["--source", "/nowhere.mp4"], "/nowhere.mp4: No such file or directory."),
    ],
)
def test_what_cannot_be_scored_is_a_sentence(two_videos: list[Path], words: list[str], sentence: str) -> None:
    result = tav("videos", *two_videos, *words)
    assert result.exit_code == 1
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr


def test_a_suite_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    result = tav("run", "--suite", "/nowhere", "--out", tmp_path / "out")
    assert (result.exit_code, result.stderr) == (
        1,
        "tav: no suite '/nowhere': give 'offline', or a folder in the LOVEU-TGVE layout\n",
    )
    assert not (tmp_path / "out").exists()
