"""The LOVEU-TGVE 2023 layout: read as the data set is published, written as its scorer reads it."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tav import Video
from tav.config import ClipConfig
from tav.errors import InvalidClip, InvalidConfig
from tav.eval.layout import CSV, pictures_in, read_clip, read_frames, read_source, read_suite, video_folder, write_frames
from tests.eval.conftest import pan, texture

COLUMNS = ["Video name", "Our GT caption", "Style Change Caption", "Object Change Caption", "Background Change Caption"]
COLUMNS += ["Multiple Changes Caption"]


def write_loveu(folder: Path, size: int = 64) -> Path:
    """A small data set as LOVEU-TGVE's: two sets under headings, one clip as frames, one as a video."""
    rows = [
        ["DAVIS Videos:", "", "", "", "", ""],
        [
            "gold-fish",
            "Gold fish are swimming",
            "Gold fish, ink style ",
            "Sharks are swimming",
            "Gold fish in space",
            "Sharks, ink",
        ],
        ["", "", "", "", "", ""],
        ["Videvo Videos:", "", "", "", "", ""],
        [
            "swans",
            "Two swans swim",
            "Two swans, oil paint",
            "Two ducks swim",
            "Two swans on lava",
            "Two ducks on lava, oil paint",
        ],
    ]
    frames_of, video_of = folder / "DAVIS_480p" / "480p_frames", folder / "videvo_480p" / "480p_videos"
    video_of.mkdir(parents=True)
    with (folder / CSV).open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    write_frames(frames_of / "gold-fish", pan(texture(1), 2, 0, 8, size))
    Video(pan(texture(2), 0, 2, 8, size), 12).save(video_of / "swans.mp4")
    return folder


@pytest.fixture(scope="module")
def loveu(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_loveu(tmp_path_factory.mktemp("data") / "loveu-tgve-2023")


def test_the_data_set_is_a_suite_of_four_edits_a_clip(loveu: Path) -> None:
    suite = read_suite(loveu)
    assert [(clip.name, clip.set, clip.caption) for clip in suite.clips] == [
        ("gold-fish", "DAVIS_480p", "Gold fish are swimming"),
        ("swans", "videvo_480p", "Two swans swim"),
    ]
    assert [case.edit for case in suite.cases] == ["style", "object", "background", "multiple"] * 2
    assert suite.cases[0].prompt == "Gold fish, ink style"
    assert suite.name == "loveu-tgve-2023"


def test_its_clips_read_from_frames_and_from_videos(loveu: Path) -> None:
    suite = read_suite(loveu, options={"num_frames": 4})
    for clip in suite.clips:
        assert read_clip(clip, ClipConfig(num_frames=6, size=(32, 32))).frames.shape == (4, 32, 32, 3)
    fish = suite.clip("gold-fish")
    expected = pan(texture(1), 2, 0, 8, 64)[[0, 2, 5, 7]]
    assert np.abs(read_source(fish.path, 4, (64, 64), {}).astype(int) - expected).mean() < 3
    assert np.array_equal(read_clip(fish, ClipConfig(size=(64, 64))).frames, read_source(fish.path, 4, (64, 64), {}))


def test_a_video_is_written_where_the_competition_looks_for_it_and_reads_back(loveu: Path, tmp_path: Path) -> None:
    suite = read_suite(loveu)
    frames = pan(texture(5), 1, 1, 3)
    folder = video_folder(tmp_path, suite, suite.cases[1])
    write_frames(folder, frames)
    assert folder == tmp_path / "DAVIS_480p" / "gold-fish" / "object"
    assert [path.name for path in folder.iterdir() if path.suffix == ".jpg"] and len(list(folder.iterdir())) == 3
    assert [path.name for path in pictures_in(folder)] == ["00000.jpg", "00001.jpg", "00002.jpg"]
    assert np.abs(read_frames(folder).astype(int) - frames).mean() < 3


def test_every_seed_is_a_case_of_its_own(loveu: Path) -> None:
    suite = read_suite(loveu, seeds=(3, 4))
    assert len(suite.cases) == 2 * 4 * 2
    assert {case.seed for case in suite.cases} == {3, 4}


def test_a_part_of_the_data_set_needs_no_other_clips(loveu: Path, tmp_path: Path) -> None:
    part = tmp_path / "part"
    part.mkdir()
    (part / CSV).write_bytes((loveu / CSV).read_bytes())
    write_frames(part / "swans", pan(texture(), 1, 1))
    assert [clip.name for clip in read_suite(part, clips=["swans"]).clips] == ["swans"]
    assert read_suite(part, clips=["swans"]).set_of("swans") == "part"
    with pytest.raises(InvalidConfig, match="has no clip gold-fish: put its frames into"):
        read_suite(part)
    with pytest.raises(InvalidConfig, match="suite part has no clip hen; it has swans"):
        read_suite(part, clips=["swans", "hen"])


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "is no suite: it needs LOVEU-TGVE-2023_Dataset.csv"),
        ("Video,Prompt\na,b\n", "lacks columns: it needs 'Video name', 'Our GT caption'"),
        ("Video name,Our GT caption,Style Change Caption\n../x,a,b\n", "'../x' will not do as a clip's name"),
        ("Video name,Our GT caption,Style Change Caption\nHeading:,,\n", "has no edits to make"),
    ],
)
def test_a_folder_that_is_no_suite_is_refused_with_what_it_lacks(tmp_path: Path, content: str | None, complaint: str) -> None:
    if content is not None:
        (tmp_path / "prompts.csv").write_text(content)
    with pytest.raises(InvalidConfig, match=complaint):
        read_suite(tmp_path)


def test_unlike_and_missing_frames_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidClip, match="holds no frames"):
        read_frames(tmp_path)
    for i in (1, 2):
        Image.new("RGB", (8 * i, 8)).save(tmp_path / f"{i}.png")
    with pytest.raises(InvalidClip, match="different sizes"):
        read_frames(tmp_path)
    with pytest.raises(InvalidClip, match="has 2 frames, too few for 3"):
        read_frames(tmp_path, 3)


def test_only_keeps_the_named_clips_and_edits_and_refuses_unknown_ones(loveu: Path) -> None:
    suite = read_suite(loveu)
    less = suite.only(["swans"], ["style", "object"])
    assert [(case.clip, case.edit) for case in less.cases] == [("swans", "style"), ("swans", "object")]
    assert len(suite.cases) == 8
    with pytest.raises(InvalidConfig, match="has no edit colour; it has style, object, background, multiple"):
        suite.only(edits=["colour"])
