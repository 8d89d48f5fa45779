"""Good files with bytes changed at random: each ends with frames or a sentence. `python -m tests.media.fuzz SEED COUNT`

A process of its own, since what is looked for includes the decoder's end.
"""

import random
import sys
import tempfile
from pathlib import Path

import av

from tav.errors import InvalidClip
from tav.probe import ClipLimits, Survey
from tav.video import pick_frames
from tests.media.shown import PIXELS, STREAMS, WHOLE


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Some bytes changed, half of them near the beginning, where the structure is; some files are cut too."""
    made = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 4, 16, 64])):
        made[rng.randrange(len(made) if rng.random() < 0.5 else min(len(made), 1500))] = rng.randrange(256)
    return bytes(made[: rng.randrange(1, len(made))] if rng.random() < 0.2 else made)


def main(seed: int, count: int) -> None:
    """Print how many were read, and how many refused."""
    av.logging.set_level(None)
    rng, read = random.Random(seed), 0
    with tempfile.TemporaryDirectory() as scratch:
        files = []
        for number, case in enumerate([*WHOLE, *PIXELS, *STREAMS]):
            folder = Path(scratch) / str(number)
            folder.mkdir()
            path = case.make(folder)
            files.append((path, path.read_bytes()))
        for _ in range(count):
            path, data = rng.choice(files)
            path.write_bytes(damaged(data, rng))
            try:
                pick_frames(path, Survey(path, ClipLimits()), 2, (32, 32))
                read += 1
            except InvalidClip:
                pass
    print(f"{read} read, {count - read} refused")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
