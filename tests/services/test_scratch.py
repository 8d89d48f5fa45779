"""Scratch folders of processes that live, and of those that do not any more."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from services.scratch import Scratch

KILLED = """
import os, signal, sys
from pathlib import Path
from services.scratch import Scratch
(Scratch(Path(sys.argv[1]), "job").path / "clip").write_bytes(b"x")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_folder_goes_with_its_block_and_never_while_its_process_uses_it(tmp_path: Path) -> None:
    work = tmp_path / "work"
    with Scratch(work, "job") as one:
        (one / "clip").write_bytes(b"x")
        with Scratch(work, "job") as two:
            assert sorted(work.iterdir()) == sorted([one, two])
            assert (one / "clip").exists()
    assert list(work.iterdir()) == []


def test_what_a_killed_process_has_left_is_removed_by_the_next_one(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert done.returncode == -9
    (left,) = tmp_path.iterdir()
    with Scratch(tmp_path, "version"):
        assert left.exists()  # of another kind
    with Scratch(tmp_path, "job") as mine:
        assert list(tmp_path.iterdir()) == [mine]
