"""Drawn clips: one object on a smooth path over a still ground, as H.264 mp4.

`python -m tools.offline_base.clips --out examples/clips` draws the examples again.
"""

import argparse
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from tools.offline_base.world import EXTENT, Scene, caption, draw, moved

MOTIONS: tuple[str, ...] = ("sine", "arc", "diagonal", "zigzag", "circle", "across")

EXAMPLES: dict[str, tuple[str, str, str, str]] = {
    "red-ball-grass": ("red", "ball", "grass", "sine"),
    "blue-box-sand": ("blue", "box", "sand", "arc"),
    "pink-star-water": ("pink", "star", "water", "circle"),
    "green-ball-snow": ("green", "ball", "snow", "zigzag"),
    "purple-cross-bricks": ("purple", "cross", "bricks", "diagonal"),
    "orange-triangle-grass": ("orange", "triangle", "grass", "across"),
}
"""Name of a shipped clip: colour, shape, ground, motion. The first is the demo's."""


def path(motion: str, num_frames: int, radius: float) -> np.ndarray:
    """The object's centre in every frame, `[F, 2]` in picture sides; it moves by a third of the picture or more."""
    t = np.linspace(0, 1, num_frames)
    reach = 0.5 - EXTENT * radius - 1 / 64  # how far the centre may go from the middle
    x, y = {
        "sine": (2 * t - 1, 0.8 * np.sin(2 * np.pi * t)),
        "arc": (2 * t - 1, 0.9 - 1.8 * np.sin(np.pi * t)),
        "diagonal": (2 * t - 1, 0.9 * (2 * t - 1)),
        "zigzag": (2 * t - 1, 0.8 * (2 / np.pi) * np.arcsin(np.sin(3 * np.pi * t))),
        "circle": (np.cos(2 * np.pi * t), np.sin(2 * np.pi * t)),
        "across": (2 * t - 1, 0.35 * np.cos(np.pi * t)),
    }[motion]
    return 0.5 + reach * np.stack([x, y], 1)


def draw_clip(
    colour: str,
    shape: str,
    ground: str,
    motion: str = "sine",
    num_frames: int = 24,
    size: int = 256,
    radius: float = 0.19,
    seed: int = 0,
) -> np.ndarray:
    """Frames uint8 `[F, size, size, 3]` of an object moving over a ground that stays as it is."""
    still = Scene(colour, shape, ground, 0.5, 0.5, radius, seed)
    return np.stack([draw(moved(still, float(x), float(y)), size) for x, y in path(motion, num_frames, radius)])


def write_mp4(frames: np.ndarray, target: Path, fps: int = 12, crf: int = 20) -> None:
    """Write uint8 `[F, H, W, 3]` as an H.264 yuv420p mp4."""
    with av.open(str(target), "w", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream(
            "libx264", rate=Fraction(fps), options={"crf": str(crf), "preset": "slow", "threads": "1"}
        )
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())


def main() -> None:
    """Draw the shipped examples."""
    parser = argparse.ArgumentParser(description="Draw the example clips.")
    parser.add_argument("--out", type=Path, required=True)
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    for seed, (name, (colour, shape, ground, motion)) in enumerate(EXAMPLES.items()):
        write_mp4(draw_clip(colour, shape, ground, motion, seed=seed), out / f"{name}.mp4")
        verb = "rolling" if shape == "ball" else "moving"
        (out / f"{name}.txt").write_text(caption(colour, shape, ground, f"a {{c}} {{s}} {verb} on {{g}}") + "\n")


if __name__ == "__main__":
    main()
