"""Files as people have them end with the right frames or with a sentence: each case and its expectation stand in `shown` and
`refused`."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tav.errors import InvalidClip
from tav.probe import probe
from tav.video import read_frames
from tests.media.expected import Case, Colour, Good, Refused
from tests.media.files import bar, combing, upright
from tests.media.refused import DEFECTS, STRANGE
from tests.media.shown import PIXELS, STREAMS, TIMES, WHOLE

ALL = [*WHOLE, *TIMES, *PIXELS, *STREAMS, *DEFECTS, *STRANGE]


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in ALL])
def test_a_file_ends_with_the_right_frames_or_a_sentence(case: Case, tmp_path: Path) -> None:
    path, expected = case.make(tmp_path), case.expected
    if isinstance(expected, Refused):
        with pytest.raises(InvalidClip, match=expected.words):
            probe(path)
        return
    found = probe(path)
    assert found.notes == expected.notes
    if isinstance(expected, Colour):
        frames, _ = read_frames(path, 2, (32, 32))
        assert np.abs(frames.astype(int) - expected.rgb).max() <= expected.within, frames[0, 16, 16]
        return
    check_frames(path, expected)
    assert ((found.width, found.height), found.num_frames) == (expected.size, expected.count)
    assert found.duration == pytest.approx(expected.seconds, rel=0.03)
    assert found.fps == pytest.approx(expected.count / expected.seconds, rel=0.15)


def check_frames(path: Path, expected: Good) -> None:
    frames, fps = read_frames(path, 4, expected.size)
    even = [round(i * (expected.count - 1) / 3) / (expected.count - 1) for i in range(4)]
    shares = even if expected.shares is None else expected.shares
    assert [bar(frame) for frame in frames] == pytest.approx(shares, abs=expected.tolerance)
    assert all(upright(frame) for frame in frames) or not expected.upright
    assert 3 / fps == pytest.approx(expected.seconds * (1 - 1 / expected.count), rel=0.15)
    if "deinterlaced" in expected.notes:
        assert max(combing(frame) for frame in frames) < 3


@pytest.mark.slow
def test_files_with_bytes_changed_at_random_end_with_frames_or_a_sentence() -> None:
    done = subprocess.run([sys.executable, "-m", "tests.media.fuzz", "7", "3000"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    read = int(done.stdout.split()[0])
    assert 300 < read < 2700, done.stdout


def test_there_are_enough_kinds_of_files() -> None:
    assert len(ALL) >= 60 and len({case.name for case in ALL}) == len(ALL)
