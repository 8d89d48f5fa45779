"""DeepSpeed's CPU communication, compiled at first use, or ahead of it by `python -m services.tuning.tuner.prebuild`.

torch's lock on an extension's folder is a file. It stays when its process is killed, and all others then wait for ever. So our
processes take turns by a lock that the system releases, and the one that holds it removes such a file.
"""

from __future__ import annotations

import fcntl
import os
import sys
from pathlib import Path

_NAME = "deepspeed_shm_comm"


def load_communication() -> None:
    """Load the extension, compiled first if need be; DeepSpeed then finds it loaded."""
    from deepspeed.ops.op_builder.cpu import ShareMemCommBuilder
    from torch.utils.cpp_extension import _get_build_directory

    # ninja is installed beside the interpreter, where neither make nor Ray's workers look.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    folder = Path(_get_build_directory(_NAME, verbose=False))
    with open(folder.with_name(f"{_NAME}.turn"), "w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        (folder / "lock").unlink(missing_ok=True)
        ShareMemCommBuilder().load(verbose=False)


if __name__ == "__main__":
    os.environ["DS_ACCELERATOR"] = "cpu"
    load_communication()
