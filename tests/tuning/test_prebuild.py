"""DeepSpeed's CPU communication, as every tuner on a CPU loads it first."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from torch.utils.cpp_extension import _get_build_directory

pytestmark = pytest.mark.slow


def test_a_lock_that_a_killed_compiler_left_behind_holds_up_nobody() -> None:
    left = Path(_get_build_directory("deepspeed_shm_comm", verbose=False)) / "lock"
    left.touch()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # ninja is there
    try:
        subprocess.run(
            [sys.executable, "-m", "services.tuning.prebuild"], check=True, timeout=300, env=os.environ | {"PATH": path}
        )
        assert not left.exists()
    finally:
        left.unlink(missing_ok=True)  # no other test may wait for it
