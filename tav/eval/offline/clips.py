"""Drawn clips: one object on a smooth path over a still ground, as H.264 mp4.

`python -m tav.eval.offline.clips --out tav/eval/offline/videos` draws the shipped ones again.
"""

import argparse
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from tav.eval.offline.world import EXTENT, Scene, caption, draw, moved

MOTIONS: tuple[str, ...] = ("sine", "arc", "diagonal", "zigzag", "circle", "across")
VIDEOS = Path(__file__).parent / "videos"
"""The clips as shipped, drawn by this module's command line."""


@dataclass(frozen=True)
class DrawnClip:
    """A clip of the drawn world and what its edits ask for instead."""

    colour: str
    shape: str
    ground: str
    motion: str
    seed: int
    to_colour: str
    to_shape: str
    to_ground: str
    radius: float = 0.19
    """Of the object, in picture sides."""

    @property
    def caption(self) -> str:
        """The source prompt."""
        verb = "rolling" if self.shape == "ball" else "moving"
        return caption(self.colour, self.shape, self.ground, f"a {{c}} {{s}} {verb} on {{g}}")

    def frames(self, num_frames: int = 24, size: int = 256) -> np.ndarray:
        """Draw the clip, uint8 `[F, size, size, 3]`."""
        return draw_clip(self.colour, self.shape, self.ground, self.motion, num_frames, size, self.radius, self.seed)


SCORED: dict[str, DrawnClip] = {
    "red-ball-grass": DrawnClip("red", "ball", "grass", "sine", 0, "blue", "box", "snow"),
    "blue-box-sand": DrawnClip("blue", "box", "sand", "arc", 1, "green", "star", "bricks"),
    "pink-star-water": DrawnClip("pink", "star", "water", "circle", 2, "yellow", "ball", "sand"),
    "green-ball-snow": DrawnClip("green", "ball", "snow", "zigzag", 3, "purple", "star", "grass"),
    "purple-cross-bricks": DrawnClip("purple", "cross", "bricks", "diagonal", 4, "orange", "box", "water"),
    "orange-triangle-grass": DrawnClip("orange", "triangle", "grass", "across", 5, "red", "ball", "water"),
}
"""What the suite `offline` scores, also the examples; the first is the demo's. No setting is chosen on these."""

DEVELOPMENT: dict[str, DrawnClip] = {
    "purple-triangle-bricks": DrawnClip("purple", "triangle", "bricks", "diagonal", 101, "orange", "ball", "snow"),
    "blue-ring-water": DrawnClip("blue", "ring", "water", "zigzag", 102, "orange", "box", "grass"),
    "green-cross-sand": DrawnClip("green", "cross", "sand", "circle", 103, "pink", "star", "water", 0.17),
    "yellow-ball-snow": DrawnClip("yellow", "ball", "snow", "sine", 104, "blue", "cross", "bricks", 0.16),
    "orange-star-bricks": DrawnClip("orange", "star", "bricks", "arc", 105, "purple", "triangle", "grass", 0.2),
    "pink-box-grass": DrawnClip("pink", "box", "grass", "across", 106, "green", "ring", "sand", 0.18),
    "red-triangle-water": DrawnClip("red", "triangle", "water", "circle", 107, "green", "cross", "snow", 0.2),
    "purple-cross-sand": DrawnClip("purple", "cross", "sand", "sine", 108, "yellow", "ball", "bricks", 0.2),
}
"""What settings are chosen on (suite `offline-development`): opposite colours, small objects, the hardest grounds."""


def path(motion: str, num_frames: int, radius: float) -> np.ndarray:
    """Draw the object's centre in every frame, `[F, 2]` in picture sides; it moves by a third of the picture or more."""
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
    """Draw frames uint8 `[F, size, size, 3]` of an object moving over a ground that stays as it is."""
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
    """Draw the shipped clips."""
    parser = argparse.ArgumentParser(description="Draw the clips of the offline suites.")
    parser.add_argument("--out", type=Path, required=True)
    out: Path = parser.parse_args().out
    for folder, clips in ((out, SCORED), (out / "development", DEVELOPMENT)):
        folder.mkdir(parents=True, exist_ok=True)
        for name, clip in clips.items():
            write_mp4(clip.frames(), folder / f"{name}.mp4")
            (folder / f"{name}.txt").write_text(clip.caption + "\n")


if __name__ == "__main__":
    main()
