"""Actors in a place, drawn frame by frame, and the truth about every frame.

Everything is vector-drawn in units of the picture's side, so one scene looks the same at any size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from tav.eval.figures.looks import Part, parts, thing
from tav.eval.figures.places import Picture, draw_place
from tav.eval.figures.pose import JOINTS, STRIDE, project, skeleton
from tav.eval.figures.styles import INK, LINE, styled

SIDE = 128
"""Of a picture, in pixels, where nothing else is said."""
_FINE = 4  # figures are drawn so many times larger, and averaged
BACKGROUND = -1


@dataclass(frozen=True)
class Actor:
    """One figure of a scene."""

    subject: str
    clothes: str
    action: str
    headwear: str | None = None
    x: float = 0.5
    """Of the foot point at time 0, in picture sides from the left."""
    ground: float = 0.88
    """Of the foot point, in picture sides from the top; who stands lower is nearer and hides others."""
    height: float = 0.62
    """In picture sides."""
    heading: float = 0.0
    """Where it looks, in degrees: 0 right, 90 to the viewer, 180 left."""
    phase: float = 0.0
    """Of its action at time 0."""
    rate: float = 1.0
    """Cycles of its action in one unit of time."""
    thing: str | None = None
    """What lies before its feet and goes along."""

    def speed(self) -> float:
        """Picture sides to the right in one unit of time."""
        return float(STRIDE[self.action] * self.rate * self.height * np.cos(np.deg2rad(self.heading)))


@dataclass(frozen=True)
class Scene:
    """One or two actors in a place, as a camera sees them."""

    actors: tuple[Actor, ...]
    place: str
    style: str = "plain"
    seed: int = 0
    """Picks the place's variant."""
    camera_speed: float = 0.0
    """Picture sides that the camera goes to the right in one unit of time."""


@dataclass(frozen=True)
class Truth:
    """What is where in one frame. Sizes are those of the picture; A actors, in the scene's order."""

    joints: NDArray[np.float32]
    """`[A, 12, 2]` x, y in picture sides, in the order of `pose.JOINTS`; also those that are hidden or outside."""
    silhouettes: NDArray[np.bool_]
    """`[A, H, W]`: where each actor would be seen if it were alone."""
    nearest: NDArray[np.int8]
    """`[H, W]`: the actor that is seen there, `BACKGROUND` where none is."""
    flow: NDArray[np.float32]
    """`[H, W, 2]`: how far what is seen there goes until the next frame, right and down, in pixels."""

    @property
    def order(self) -> list[int]:
        """Actors, the nearest first."""
        return self._order

    _order: list[int]


@dataclass(frozen=True)
class _Placed:
    """An actor's parts at one time, in picture sides."""

    joints: np.ndarray
    parts: list[Part]


def _placed(actor: Actor, time: float, camera: float) -> _Placed:
    figure = skeleton(actor.action, actor.phase + actor.rate * time)
    foot = np.array([actor.x + actor.speed() * time - camera, actor.ground])
    pieces = parts(actor.subject, actor.clothes, actor.headwear, actor.action, figure, actor.heading)
    if actor.thing:
        radius, ahead = 0.075, 0.30 * np.cos(np.deg2rad(actor.heading)) or 0.3
        aside = ahead if abs(ahead) > 0.15 else 0.26
        turn = actor.speed() * time / (radius * actor.height)
        pieces = pieces + thing(actor.thing, np.array([aside, -radius]), radius, turn)
    moved = [
        Part(
            p.name,
            p.outline * actor.height + foot,
            p.frame * actor.height + np.array([[0, 0, foot[0]], [0, 0, foot[1]]]),
            p.colour,
            p.near,
            p.shade,
        )
        for p in pieces
    ]
    return _Placed(project(figure.joints, actor.heading)[:, :2] * actor.height + foot, moved)


def _drawing_order(scene: Scene) -> list[int]:
    """Sort actors, the farthest first."""
    return sorted(range(len(scene.actors)), key=lambda i: scene.actors[i].ground)


def draw(scene: Scene, time: float = 0.0, size: int = SIDE) -> NDArray[np.uint8]:
    """Draw the picture at a time, uint8 `[size, size, 3]`; `size` is a multiple of 32."""
    camera = scene.camera_speed * time
    picture = draw_place(scene.place, scene.seed, size, camera)
    fine = size * _FINE
    canvas = Image.new("RGBA", (fine, fine), (0, 0, 0, 0))
    pen = ImageDraw.Draw(canvas)
    line = LINE[scene.style] / 100 * fine
    for index in _drawing_order(scene):
        actor = _placed(scene.actors[index], time, camera)
        _shadow(pen, scene.actors[index], actor, fine)
        for part in actor.parts:
            points = [tuple(p) for p in part.outline * fine - 0.5]
            colour = tuple(int(np.clip(c * part.shade, 0, 255)) for c in part.colour)
            if line:
                pen.line([*points, points[0], points[1]], fill=(*INK, 255), width=max(1, round(2 * line)), joint="curve")
            pen.polygon(points, fill=(*colour, 255))
    over = np.asarray(canvas, np.float32)
    cover = over[..., 3:] / 255
    small = (over[..., :3] * cover).reshape(size, _FINE, size, _FINE, 3).mean((1, 3))
    share = cover.reshape(size, _FINE, size, _FINE, 1).mean((1, 3))
    whole: Picture = (picture * (1 - share) + small).astype(np.float32)
    return np.clip(styled(whole, scene.style) + 0.5, 0, 255).astype(np.uint8)


def _shadow(pen: ImageDraw.ImageDraw, actor: Actor, placed: _Placed, fine: int) -> None:
    ankles = placed.joints[[JOINTS.index("left_ankle"), JOINTS.index("right_ankle")]]
    x, half = float(ankles[:, 0].mean()), 0.16 * actor.height
    box = [(x - half) * fine, (actor.ground - 0.018) * fine, (x + half) * fine, (actor.ground + 0.018) * fine]
    pen.ellipse(box, fill=(60, 60, 66, 90))


def truth(scene: Scene, time: float = 0.0, step: float = 1 / 8, size: int = SIDE) -> Truth:
    """Say what is where at a time, and how it moves until `time + step`."""
    cameras = scene.camera_speed * time, scene.camera_speed * (time + step)
    count = len(scene.actors)
    now = [_placed(actor, time, cameras[0]) for actor in scene.actors]
    then = [_placed(actor, time + step, cameras[1]) for actor in scene.actors]
    silhouettes = np.zeros((count, size, size), bool)
    nearest = np.full((size, size), BACKGROUND, np.int8)
    flow = np.zeros((size, size, 2), np.float32)
    flow[..., 0] = (cameras[0] - cameras[1]) * size
    at = (np.arange(size) + 0.5) / size
    here = np.stack([*np.broadcast_arrays(at[None, :], at[:, None]), np.ones((size, size))], -1)  # [H, W, 3]
    order = _drawing_order(scene)
    for index in order:
        later = {part.name: part.frame for part in then[index].parts}
        for part in now[index].parts:
            mask = _mask(part.outline, size)
            silhouettes[index] |= mask
            nearest[mask] = index
            goes = _affine(part.frame, later.get(part.name, part.frame))
            flow[mask] = (here[mask] @ goes.T - here[mask][:, :2]) * size
    joints = np.stack([placed.joints for placed in now]).astype(np.float32)
    return Truth(joints, silhouettes, nearest, flow, order[::-1])


def foreground(scene: Scene, time: float = 0.0, size: int = SIDE) -> NDArray[np.bool_]:
    """Mark where an actor or its thing is seen, `[size, size]`."""
    camera = scene.camera_speed * time
    everything = [part for actor in scene.actors for part in _placed(actor, time, camera).parts]
    return np.logical_or.reduce([_mask(part.outline, size) for part in everything])


def _mask(outline: np.ndarray, size: int) -> np.ndarray:
    image = Image.new("1", (size, size), 0)
    ImageDraw.Draw(image).polygon([tuple(p) for p in outline * size - 0.5], fill=1)
    return np.asarray(image)


def _affine(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Return the `[2, 3]` map from a point of the picture before to the one after, both in a bone's frame."""
    square = np.array([[0.0, 0.0, 1.0]])
    return after @ np.linalg.inv(np.concatenate([before, square]))


def draw_clip(scene: Scene, num_frames: int = 16, step: float = 1 / 8, size: int = SIDE) -> NDArray[np.uint8]:
    """Draw frames uint8 `[F, size, size, 3]`, `step` units of time apart."""
    return np.stack([draw(scene, i * step, size) for i in range(num_frames)])
