"""The drawn world: one object on one textured ground, and the captions that describe it.

Everything is vector-drawn in units of the picture's side, so that one `Scene` looks the same at 64×64 (what the
base learns from) and at 256×256 (what the example clips show).
"""

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 24, 36),
    "orange": (250, 132, 8),
    "yellow": (250, 226, 30),
    "green": (20, 178, 60),
    "blue": (28, 70, 224),
    "purple": (138, 36, 196),
    "pink": (255, 116, 196),
}
"""Fill colours of objects, RGB."""

GROUNDS: dict[str, tuple[int, int, int]] = {
    "grass": (84, 110, 62),
    "sand": (206, 182, 136),
    "bricks": (138, 92, 80),
    "water": (98, 142, 168),
    "snow": (232, 238, 244),
}
"""Mean colours of grounds, RGB; muted, where objects are saturated."""

SHAPES: tuple[str, ...] = ("ball", "box", "triangle", "star", "cross", "ring")

OUTLINE = (22, 20, 28)
"""The thin dark line around every object."""

EXTENT = 1.2
"""How far a shape reaches from its centre at most, in radii."""

RADIUS = (10 / 64, 17 / 64)
"""Smallest and largest object radius, in picture sides."""

PHRASES: tuple[str, ...] = (
    "a {c} {s} on {g}",
    "a {c} {s} on {g}",
    "the {c} {s} on the {g}",
    "a picture of a {c} {s} on {g}",
    "a photo of a {c} {s} on {g}",
    "{c} {s} on {g}",
    "{c} {s}, {g}",
    "one {c} {s} on the {g}",
    "a {c} {s} is moving on {g}",
    "a {c} {s} moving on {g}",
    "a {c} {s} is rolling on the {g}",
    "a {c} {s} rolling on {g}",
    "a {c} {s} sliding over {g}",
)

PARTIAL: tuple[str, ...] = ("a {c} {s}", "a {s} on {g}", "a {c} {s}")
"""Phrases that leave something open; rare in training."""


@dataclass(frozen=True)
class Scene:
    """One picture: what is in it, where, and which variant of the ground's texture."""

    colour: str
    shape: str
    ground: str
    x: float
    """Centre, in picture sides from the left."""
    y: float
    """Centre, in picture sides from the top."""
    radius: float
    """In picture sides."""
    seed: int = 0
    """Picks the texture's variant."""


# --- combinations and captions ----------------------------------------------------------------------------------------


def combinations() -> list[tuple[str, str, str]]:
    """List all (colour, shape, ground), 210 of them."""
    return [(c, s, g) for c in COLOURS for s in SHAPES for g in GROUNDS]


def held_out() -> list[tuple[str, str, str]]:
    """List the combinations that training never sees, about a tenth; every colour, shape and ground appears in the others."""
    return [
        (c, s, g)
        for i, c in enumerate(COLOURS)
        for j, s in enumerate(SHAPES)
        for k, g in enumerate(GROUNDS)
        if (i + 2 * j + 3 * k) % 10 == 7
    ]


def caption(colour: str, shape: str, ground: str, phrase: str = PHRASES[0]) -> str:
    """Fill in the phrase, with the right article."""
    text = phrase.format(c=colour, s=shape, g=ground)
    return text.replace("a orange", "an orange")


def random_scene(rng: np.random.Generator, among: list[tuple[str, str, str]] | None = None) -> Scene:
    """Draw a scene with the object wholly inside, its combination drawn evenly from `among` (default: all)."""
    chosen = among or combinations()
    colour, shape, ground = chosen[rng.integers(len(chosen))]
    radius = float(rng.uniform(*RADIUS))
    low = EXTENT * radius + 1 / 64
    x, y = rng.uniform(low, 1 - low, 2)
    return Scene(colour, shape, ground, float(x), float(y), radius, int(rng.integers(2**31)))


# --- drawing ----------------------------------------------------------------------------------------------------------


def outline(shape: str) -> list[np.ndarray]:
    """Return the shape's closed polygons around (0, 0) with radius 1, each `[N, 2]`; the second one is a hole."""
    turn = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    circle = np.stack([np.cos(turn), np.sin(turn)], 1)
    if shape == "ball":
        return [circle]
    if shape == "box":
        return [0.9 * np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)])]
    if shape == "triangle":
        return [np.array([(0, -1.15), (1.15, 0.85), (-1.15, 0.85)])]
    if shape == "star":
        spike = np.linspace(0, 2 * np.pi, 10, endpoint=False) - np.pi / 2
        reach = np.where(np.arange(10) % 2 == 0, 1.2, 0.5)[:, None]
        return [reach * np.stack([np.cos(spike), np.sin(spike)], 1)]
    if shape == "cross":
        a, b = 1.12, 0.38
        return [
            np.array(
                [(-b, -a), (b, -a), (b, -b), (a, -b), (a, b), (b, b), (b, a), (-b, a), (-b, b), (-a, b), (-a, -b), (-b, -b)]
            )
        ]
    if shape == "ring":
        return [1.15 * circle, 0.6 * circle]
    raise ValueError(f"no such shape: {shape!r}")


def silhouette(shape: str, x: float, y: float, radius: float, size: int, grow: float = 0.0) -> np.ndarray:
    """Return the coverage `[size, size]` in 0–1 of a shape; `grow` pushes its edge outwards (in picture sides)."""
    fine = size * 4
    image = Image.new("L", (fine, fine), 0)
    pen = ImageDraw.Draw(image)
    for level, polygon in enumerate(outline(shape)):
        points = [tuple(p) for p in (polygon * radius + (x, y)) * fine - 0.5]
        inside = 255 if level == 0 else 0
        pen.polygon(points, fill=inside)
        if grow:
            width = max(1, round(2 * grow * fine))
            pen.line([*points, points[0], points[1]], fill=255, width=width, joint="curve")
    return np.asarray(image.resize((size, size), Image.Resampling.BOX), np.float32) / 255


def _noise(rng: np.random.Generator, size: int, across: int, down: int) -> np.ndarray:
    """Smooth noise `[size, size]`, about unit deviation, with so many cells across and down the picture."""
    grid = rng.standard_normal((down, across)).astype(np.float32)
    return np.asarray(Image.fromarray(grid).resize((size, size), Image.Resampling.BICUBIC))


def draw_ground(ground: str, seed: int, size: int) -> np.ndarray:
    """Draw the textured ground alone, float32 `[size, size, 3]` in 0–255."""
    rng = np.random.default_rng(seed)
    at = (np.arange(size, dtype=np.float32) + 0.5) / size
    u, v = at[None, :], at[:, None]
    mean = np.array(GROUNDS[ground], np.float32)
    if ground == "grass":
        shade = 9 * _noise(rng, size, 24, 8) + 4 * _noise(rng, size, 5, 5)
        return mean + shade[..., None] * np.array([0.9, 1.1, 0.6], np.float32)
    if ground == "sand":
        ripple = np.sin(2 * np.pi * (7 * v + 0.35 * _noise(rng, size, 4, 4) + rng.random()))
        return mean + (6 * ripple + 3 * _noise(rng, size, 12, 12))[..., None]
    if ground == "bricks":
        row = np.floor(v * 8)
        along = (u * 4 + 0.5 * (row % 2)) % 1
        up = (v * 8) % 1
        edge = np.minimum(np.minimum(along, 1 - along) * 2, np.minimum(up, 1 - up))  # in brick heights
        mortar = np.clip((0.13 - edge) / 0.08 + 0.5, 0, 1)[..., None]
        brick = mean - 8 + (5 * _noise(rng, size, 8, 8))[..., None]
        return brick * (1 - mortar) + np.array([176, 160, 150], np.float32) * mortar
    if ground == "water":
        wave = np.sin(2 * np.pi * (5 * v + 0.5 * _noise(rng, size, 6, 4) + rng.random()))
        return mean + (11 * wave + 2 * _noise(rng, size, 10, 10))[..., None] * np.array([1, 0.9, 0.7], np.float32)
    if ground == "snow":
        shade = 5 * _noise(rng, size, 6, 6) + 2 * _noise(rng, size, 14, 14)
        return mean + shade[..., None] * np.array([1, 0.9, 0.7], np.float32)
    raise ValueError(f"no such ground: {ground!r}")


def draw(scene: Scene, size: int = 64) -> np.ndarray:
    """Draw the picture of a scene, uint8 `[size, size, 3]`."""
    picture = draw_ground(scene.ground, scene.seed, size)
    line = silhouette(scene.shape, scene.x, scene.y, scene.radius, size, grow=0.6 / 64)[..., None]
    fill = silhouette(scene.shape, scene.x, scene.y, scene.radius, size, grow=0)[..., None]
    fill = np.minimum(fill, line)
    picture = picture * (1 - line) + np.array(OUTLINE, np.float32) * line
    depth = (np.arange(size, dtype=np.float32) + 0.5) / size - scene.y
    light = 1 - 0.10 * np.clip(depth / scene.radius, -1, 1)[:, None, None]  # a little brighter on top
    body = np.clip(np.array(COLOURS[scene.colour], np.float32) * light, 0, 255)
    picture = picture * (1 - fill) + body * fill
    return np.clip(picture + 0.5, 0, 255).astype(np.uint8)


def object_mask(scene: Scene, size: int = 64) -> np.ndarray:
    """Mark where the object is, bool `[size, size]`."""
    return silhouette(scene.shape, scene.x, scene.y, scene.radius, size) > 0.5


def moved(scene: Scene, x: float, y: float) -> Scene:
    """Return the same scene with its object elsewhere."""
    return replace(scene, x=x, y=y)
