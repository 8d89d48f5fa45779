"""What subjects are made of: flat parts that hang on the skeleton, each with a frame that moves with its bone.

A part's frame says where a point of it goes when the figure moves, which is what optical flow is read from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tav.eval.figures.pose import HEAD, HIP_WIDTH, NECK, SHOULDER_WIDTH, Skeleton, project

Colour = tuple[int, int, int]

CLOTHES: dict[str, Colour] = {
    "red": (216, 30, 40),
    "yellow": (246, 214, 30),
    "green": (24, 150, 62),
    "blue": (34, 76, 220),
    "purple": (132, 44, 190),
    "pink": (250, 118, 190),
}
"""Colours of what is worn on the body, RGB."""

SKIN, HAIR_SHORT, HAIR_LONG, TROUSERS, SHOES = (238, 190, 150), (74, 46, 30), (196, 120, 44), (48, 52, 74), (38, 34, 38)
METAL, DARK_METAL, LAMP = (166, 174, 184), (92, 98, 110), (70, 230, 240)
FUR, SNOUT, BLACK = (116, 74, 44), (206, 164, 120), (24, 22, 26)
SUIT, VISOR, PALE = (236, 238, 242), (40, 48, 74), (150, 156, 168)
BONE, SOCKET = (232, 228, 208), (30, 28, 32)


@dataclass(frozen=True)
class Part:
    """A filled polygon of one figure."""

    name: str
    outline: np.ndarray
    """`[N, 2]` points in heights, from the figure's foot point."""
    frame: np.ndarray
    """`[2, 3]`: a point of the bone's own coordinates (u, v, 1) to x, y."""
    colour: Colour
    near: float
    """Parts with more are drawn later."""
    shade: float = 1.0
    """Brightness, by how the part is turned."""


@dataclass(frozen=True)
class Body:
    """How thick a subject is, and of what colour. Widths are radii in heights."""

    arm: tuple[float, float]
    leg: tuple[float, float]
    trunk: tuple[float, float]
    """At the shoulders and at the hips."""
    forearm: Colour
    hand: Colour
    thigh: Colour
    shin: Colour
    foot: Colour
    head: float = HEAD
    boxy: bool = False
    """Limbs with square ends."""


BODIES: dict[str, Body] = {
    "man": Body((0.044, 0.036), (0.058, 0.044), (0.074, 0.060), SKIN, SKIN, TROUSERS, TROUSERS, SHOES),
    "woman": Body((0.036, 0.030), (0.048, 0.036), (0.060, 0.054), SKIN, SKIN, SKIN, SKIN, SHOES),
    "robot": Body((0.038, 0.038), (0.048, 0.048), (0.078, 0.068), METAL, DARK_METAL, METAL, METAL, DARK_METAL, 0.1, True),
    "bear": Body((0.062, 0.054), (0.078, 0.062), (0.094, 0.098), FUR, FUR, FUR, FUR, FUR, 0.116),
    "astronaut": Body((0.058, 0.052), (0.070, 0.062), (0.088, 0.080), SUIT, PALE, SUIT, SUIT, PALE, 0.124),
    "skeleton": Body((0.024, 0.018), (0.026, 0.022), (0.062, 0.052), BONE, BONE, BONE, BONE, BONE, 0.1),
}
"""The subjects; all share one skeleton."""

HEADWEAR: tuple[str, ...] = ("hat", "crown", "cap")
THINGS: dict[str, tuple[Colour, Colour]] = {
    "ball": ((245, 245, 245), (214, 60, 50)),
    "watermelon": ((44, 130, 54), (24, 84, 38)),
}
"""What may lie before the feet: colour and stripes."""

_ROUND = np.stack(
    [np.cos(np.linspace(0, 2 * np.pi, 20, endpoint=False)), np.sin(np.linspace(0, 2 * np.pi, 20, endpoint=False))], 1
)


def _hull(points: np.ndarray) -> np.ndarray:
    """Return the convex hull of points `[N, 2]`, in order."""
    ordered = sorted(map(tuple, points.tolist()))

    def half(some: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
        chain: list[tuple[float, float]] = []
        for p in some:
            while len(chain) > 1:
                (ax, ay), (bx, by) = chain[-2], chain[-1]
                if (bx - ax) * (p[1] - ay) - (by - ay) * (p[0] - ax) > 0:
                    break
                chain.pop()
            chain.append(p)
        return chain[:-1]

    return np.array(half(ordered) + half(ordered[::-1]))


def _discs(*discs: tuple[np.ndarray, float]) -> np.ndarray:
    return _hull(np.concatenate([centre[:2] + radius * _ROUND for centre, radius in discs]))


def _frame(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Make a bone's frame: u goes from 0 at `start` to 1 at `end`; v is the distance from that line, in heights."""
    along = end[:2] - start[:2]
    length = float(np.linalg.norm(along))
    if length < 0.02:  # the bone points at the viewer
        along = np.array([0.0, 0.02])
        length = 0.02
    across = np.array([-along[1], along[0]]) / length
    return np.stack([along, across, start[:2]], 1)


def _bar(start: np.ndarray, end: np.ndarray, widths: tuple[float, float]) -> np.ndarray:
    across = _frame(start, end)[:, 1]
    a, b = start[:2], end[:2]
    return np.stack([a + widths[0] * across, b + widths[1] * across, b - widths[1] * across, a - widths[0] * across])


def _turned(bone: np.ndarray) -> float:
    """Brightness of a limb by its direction: towards the viewer brighter, to the right (away from the light) darker."""
    return float(1.0 + 0.16 * bone[2] / 0.2 - 0.08 * bone[0] / 0.2)


def parts(subject: str, clothes: str, headwear: str | None, action: str, figure: Skeleton, heading: float) -> list[Part]:
    """List everything of one figure, the farthest first."""
    at = {"pelvis": figure.pelvis, "neck": figure.neck, "head": figure.head}
    at |= {
        f"{s}_{j}": figure.joint(f"{s}_{j}")
        for s in ("left", "right")
        for j in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
    }
    seen = {name: project(point, heading) for name, point in at.items()}
    forward = project(np.array([1.0, 0.0, 0.0]), heading)
    built = [
        *_limbs(subject, clothes, seen, forward),
        *_trunk(subject, clothes, seen, forward),
        *_head(subject, headwear, figure, seen, heading),
    ]
    if action == "skiing":
        built += _skis(seen, forward)
    return sorted(built, key=lambda part: part.near)


def _limbs(subject: str, clothes: str, seen: dict[str, np.ndarray], forward: np.ndarray) -> Iterator[Part]:
    body, worn = BODIES[subject], CLOTHES[clothes]
    for side in ("left", "right"):
        for upper, lower, widths, colours in (
            ("shoulder elbow", "elbow wrist", body.arm, (worn, body.forearm)),
            ("hip knee", "knee ankle", body.leg, (body.thigh, body.shin)),
        ):
            for names, colour, thick, order in (
                (upper, colours[0], (widths[0], sum(widths) / 2), 0.0),
                (lower, colours[1], (sum(widths) / 2, widths[1]), 0.004),
            ):
                start, end = (seen[f"{side}_{name}"] for name in names.split())
                near = float(start[2] + end[2]) / 2 + order
                far = 0.8 if near < -0.02 else 1.0
                outline = _bar(start, end, thick) if body.boxy else _discs((start, thick[0]), (end, thick[1]))
                name = f"{side}_{names.replace(' ', '_')}"
                yield Part(name, outline, _frame(start, end), colour, near, far * _turned(end - start))
        wrist, ankle = seen[f"{side}_wrist"], seen[f"{side}_ankle"]
        elbow, knee = seen[f"{side}_elbow"], seen[f"{side}_knee"]
        far = 0.8 if wrist[2] < -0.02 else 1.0
        hand = wrist[:2] + 0.8 * body.arm[1] * _ROUND * 1.25
        yield Part(f"{side}_hand", hand, _frame(elbow, wrist), body.hand, float(wrist[2]) + 0.006, far)
        toe = ankle + 0.075 * forward
        sole = np.array([0.0, 0.012, 0.0])
        shoe = _discs((ankle + sole, body.leg[1] * 0.95), (toe + sole * 1.3, body.leg[1] * 0.7))
        far = 0.8 if ankle[2] < -0.02 else 1.0
        yield Part(f"{side}_foot", shoe, _frame(knee, ankle), body.foot, float(ankle[2]) + 0.008, far)


def _trunk(subject: str, clothes: str, seen: dict[str, np.ndarray], forward: np.ndarray) -> Iterator[Part]:
    body, worn = BODIES[subject], CLOTHES[clothes]
    pelvis, neck = seen["pelvis"], seen["neck"]
    frame, near = _frame(pelvis, neck), float(pelvis[2] + neck[2]) / 2
    corners = [
        (seen[f"{side}_{joint}"], r)
        for side in ("left", "right")
        for joint, r in zip(("shoulder", "hip"), body.trunk, strict=True)
    ]
    shade = 1.0 + 0.08 * float(forward[2]) - 0.05 * float(forward[0])
    yield Part("trunk", _discs(*corners), frame, worn, near, shade)
    yield Part("neck", _discs((neck, 0.03), (seen["head"], 0.03)), _frame(neck, seen["head"]), body.forearm, near - 0.001)
    if subject == "woman":
        hips = [seen["left_hip"], seen["right_hip"]]
        hem = (
            pelvis
            + np.array([0.0, 0.17, 0.0])
            + 0.25 * (seen["left_knee"] + seen["right_knee"] - 2 * pelvis) * np.array([1, 0, 0])
        )
        wide = np.array([0.115, 0.0, 0.0])
        skirt = _discs(*[(hip, 0.05) for hip in hips], (hem + wide, 0.012), (hem - wide, 0.012))
        yield Part("skirt", skirt, _frame(pelvis, hem), worn, near + 0.06, shade * 0.95)
    if subject == "robot":
        panel = pelvis + 0.6 * (neck - pelvis) + 0.05 * forward
        square = panel[:2] + 0.04 * np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * [max(0.2, abs(float(forward[2]))), 0.8]
        yield Part("panel", square, frame, LAMP, near + (0.012 if forward[2] > -0.3 else -0.2))
    if subject == "skeleton":
        for level in (0.45, 0.65, 0.85):
            middle = pelvis + level * (neck - pelvis)
            half = (seen["left_shoulder"] - seen["right_shoulder"])[:2] / 2
            half = half if np.linalg.norm(half) > 0.045 else np.array([0.045, 0.0])
            rib = _discs((middle[:2] - half, 0.009), (middle[:2] + half, 0.009))
            yield Part(f"rib_{level}", rib, frame, BONE, near + 0.012)
    if subject == "astronaut":
        back = -0.085 * forward
        pack = _discs((neck + back, 0.055), (pelvis + back + [0.0, -0.06, 0.0], 0.055))
        yield Part("pack", pack, frame, (176, 182, 194), near + float(back[2]) - 0.002)


def _head(subject: str, headwear: str | None, figure: Skeleton, seen: dict[str, np.ndarray], heading: float) -> Iterator[Part]:
    body, head, neck = BODIES[subject], seen["head"], seen["neck"]
    r, frame = body.head, _frame(neck, head)
    up = (head - neck)[:2] / (NECK + HEAD)
    aside = np.array([-up[1], up[0]])  # to the picture's right when upright

    def at(azimuth: float, height: float, radius: float = 0.94) -> tuple[np.ndarray, float]:
        """Place a point on the head: degrees from where it looks (left positive), and how high, both on a sphere."""
        flat = np.sqrt(max(0.0, 1 - height**2)) * radius * r
        a = np.deg2rad(azimuth)
        x, _, near = project(np.array([flat * np.cos(a), flat * np.sin(a), 0.0]), heading)
        return head[:2] + x * aside + height * r * up, float(near)

    order = 0.3 + float(head[2])  # a head hides whatever is behind it, never the other way round

    def disc(
        name: str, azimuth: float, height: float, size: tuple[float, float], colour: Colour, step: float = 0.002
    ) -> Iterator[Part]:
        centre, near = at(azimuth, height)
        if near > 0.12 * r:
            squeeze = max(0.35, near / r)
            ring = centre + _ROUND[:, :1] * size[0] * squeeze * aside + _ROUND[:, 1:] * size[1] * up
            yield Part(name, ring, frame, colour, order + step)

    looks = project(np.array([1.0, 0.0, 0.0]), heading)
    skull = {"man": SKIN, "woman": SKIN, "robot": METAL, "bear": FUR, "astronaut": SUIT, "skeleton": BONE}[subject]
    if subject == "robot":
        square = 0.92 * r * np.array([(-1, -0.9), (1, -0.9), (1, 0.9), (-1, 0.9)])
        yield Part("head", head[:2] + square[:, :1] * aside + square[:, 1:] * up, frame, skull, order)
        tip = head[:2] + 1.5 * r * up
        if headwear is None:
            yield Part("aerial", _discs((head[:2] + 0.8 * r * up, 0.008), (tip, 0.008)), frame, DARK_METAL, order - 0.001)
            yield Part("lamp", tip + 0.02 * _ROUND, frame, (230, 60, 50), order + 0.001)
    else:
        yield Part("head", head[:2] + r * (_ROUND * [0.92, 1.0] if subject != "astronaut" else _ROUND), frame, skull, order)
    if subject in ("man", "woman"):
        cap = _discs(
            *[
                (head[:2] - 0.10 * r * looks[0] * aside + y * r * up + x * r * aside, 0.28 * r)
                for x, y in ((-0.62, 0.42), (0, 0.72), (0.62, 0.42))
            ]
        )
        hair = HAIR_SHORT if subject == "man" else HAIR_LONG
        yield Part("hair", cap, frame, hair, order + 0.003)
        if subject == "woman":
            back = head[:2] - 0.42 * r * looks[0] * aside
            width = 0.45 + 0.45 * abs(float(looks[2]))
            long = _discs(
                *[
                    (back + x * width * r * aside + y * r * up, 0.3 * r)
                    for x, y in ((-1, 0.3), (1, 0.3), (-0.9, -1.15), (0.9, -1.15))
                ]
            )
            yield Part("long_hair", long, frame, hair, order - 0.002 if looks[2] > -0.3 else order + 0.004)
    if subject == "bear":
        for side in (-1, 1):
            spread = max(0.5, abs(float(looks[2])))
            ear = head[:2] + side * 0.68 * spread * r * aside + 0.80 * r * up
            yield Part(f"ear_{side}", ear + 0.34 * r * _ROUND, frame, FUR, order - 0.001)
        centre, near = at(0, -0.25, 1.1)
        if near > -0.3 * r:
            yield Part("snout", centre + _ROUND * [0.42 * r, 0.34 * r], frame, SNOUT, order + 0.002)
            tip, _ = at(0, -0.12, 1.35)
            yield Part("nose", tip + 0.14 * r * _ROUND, frame, BLACK, order + 0.003)
    if subject == "astronaut":
        yield from disc("visor", 0, 0.02, (0.72 * r, 0.58 * r), VISOR)
        yield from disc("glint", 24, 0.24, (0.2 * r, 0.14 * r), (150, 180, 230), 0.003)
    else:
        eyes = {"robot": LAMP, "skeleton": SOCKET}.get(subject, BLACK)
        size = {"robot": 0.2, "skeleton": 0.25}.get(subject, 0.13)
        for name, azimuth in (("left_eye", 28), ("right_eye", -28)):
            yield from disc(name, azimuth, 0.12 if subject != "bear" else 0.25, (size * r, size * r), eyes, 0.004)
        if subject in ("robot", "skeleton"):
            yield from disc("mouth", 0, -0.5, (0.36 * r, 0.1 * r), SOCKET if subject == "skeleton" else DARK_METAL, 0.004)
        elif subject in ("man", "woman"):
            yield from disc("mouth", 0, -0.42, (0.24 * r, 0.08 * r), (170, 60, 60), 0.004)
    if headwear:
        yield from _headwear(headwear, head[:2], r, up, aside, looks, frame, order + 0.006)


def _headwear(
    kind: str, head: np.ndarray, r: float, up: np.ndarray, aside: np.ndarray, looks: np.ndarray, frame: np.ndarray, order: float
) -> Iterator[Part]:
    def shape(points: Sequence[tuple[float, float]]) -> np.ndarray:
        p = np.array(points) * r
        return head + p[:, :1] * aside + p[:, 1:] * up

    if kind == "hat":
        yield Part("brim", shape([(-1.55, 0.52), (1.55, 0.52), (1.3, 0.74), (-1.3, 0.74)]), frame, (120, 66, 24), order)
        yield Part(
            "top", shape([(-0.8, 0.7), (0.8, 0.7), (0.62, 1.5), (0, 1.36), (-0.62, 1.5)]), frame, (150, 86, 34), order + 0.001
        )
    elif kind == "crown":
        teeth = [(-0.85, 0.58), (0.85, 0.58), (1.0, 1.5), (0.5, 1.02), (0, 1.6), (-0.5, 1.02), (-1.0, 1.5)]
        yield Part("crown", shape(teeth), frame, (250, 206, 40), order)
    else:
        dome = [(np.cos(a), 0.5 + 0.72 * np.sin(a)) for a in np.linspace(0, np.pi, 12)]
        yield Part("cap", shape(dome), frame, (232, 96, 20), order)
        x = float(looks[0])
        peak = [(x * 0.5 - 0.55, 0.52), (x * 0.5 + 0.55, 0.52), (x * 1.15 + 0.6, 0.36), (x * 1.15 - 0.6, 0.36)]
        yield Part("peak", shape(peak), frame, (196, 70, 10), order + 0.001)


def _skis(seen: dict[str, np.ndarray], forward: np.ndarray) -> Iterator[Part]:
    for side in ("left", "right"):
        ankle, wrist = seen[f"{side}_ankle"], seen[f"{side}_wrist"]
        under = ankle + np.array([0.0, 0.034, 0.0])
        tail, tip = under - 0.24 * forward, under + 0.34 * forward
        if abs(forward[0]) < 0.5:  # seen from the front: the part before the foot comes down towards the viewer
            tail, tip = under - np.array([0, 0.03, 0]), under + np.array([0, 0.1, 0])
        yield Part(
            f"{side}_ski", _discs((tail, 0.013), (tip, 0.013)), _frame(tail, tip), (206, 60, 46), float(ankle[2]) - 0.001
        )
        ground = np.array([wrist[0] - 0.14 * forward[0], ankle[1] + 0.03, wrist[2]])
        stick = _discs((wrist, 0.007), (ground, 0.007))
        yield Part(f"{side}_pole", stick, _frame(wrist, ground), (60, 60, 70), float(wrist[2]) + 0.001)


def thing(kind: str, centre: np.ndarray, radius: float, turn: float) -> list[Part]:
    """Make a small thing, rolled by `turn` radians; heights as the figure's."""
    colour, stripes = THINGS[kind]
    cos, sin = np.cos(turn), np.sin(turn)
    rotation = np.array([[cos, -sin], [sin, cos]])
    frame = np.concatenate([rotation * radius, centre[:, None]], 1)
    round_ = centre + radius * _ROUND * ([1.0, 1.0] if kind == "ball" else [1.25, 0.95])
    built = [Part(kind, round_, frame, colour, 0.2)]
    for offset in (-0.55, 0.0, 0.55):
        band = radius * np.array([(offset - 0.13, -0.72), (offset + 0.13, -0.72), (offset + 0.13, 0.72), (offset - 0.13, 0.72)])
        built.append(Part(f"{kind}_stripe", centre + band @ rotation.T, frame, stripes, 0.201))
    return built


__all__ = ["BODIES", "CLOTHES", "HEADWEAR", "HIP_WIDTH", "SHOULDER_WIDTH", "THINGS", "Part", "parts", "thing"]
