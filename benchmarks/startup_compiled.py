"""How long a first prediction with compiled blocks takes: where they must be compiled, and where another process has done so.

    python -m benchmarks.startup_compiled

The offline base on one thread of a CPU, 8 frames of 64×64; each prediction in a process of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from typing import Any


def predictions() -> dict[str, float]:
    """Seconds of the first and of a later one in this process, imports and the base's loading left out."""
    import torch

    from tav import Base, compile_blocks, inflate

    torch.set_num_threads(1)
    base = Base.load("offline")
    net = inflate(base.unet, **base.net_config().model_dump())
    compile_blocks(net)
    latents, text, seconds = torch.randn(1, 4, 8, 16, 16), base.encode_text(["a red ball rolling on grass"]), []
    with torch.inference_mode():
        for _ in range(3):
            began = time.perf_counter()
            net(latents, 500, text)
            seconds.append(round(time.perf_counter() - began, 3))
    return {"first_prediction_seconds": seconds[0], "later_prediction_seconds": min(seconds[1:])}


def main() -> None:
    if "--child" in sys.argv:
        print(json.dumps(predictions()))
        return
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as kept:
        for case in ("compiled anew", "found"):
            command = [sys.executable, "-m", "benchmarks.startup_compiled", "--child"]
            told = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": kept}
            done = subprocess.run(command, check=True, capture_output=True, text=True, env=told)
            figures[case] = json.loads(done.stdout.splitlines()[-1])
    from benchmarks import record

    record.write("startup-compiled", figures)


if __name__ == "__main__":
    main()
