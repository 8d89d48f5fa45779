"""A skeleton of 12 joints in three dimensions, and actions that move it in cycles.

Lengths are in body heights. A joint has three coordinates: `forward` (where the figure looks), `left` (the figure's own
left hand) and `down`. `project` turns them into the picture's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

JOINTS: tuple[str, ...] = tuple(
    f"{side}_{joint}" for joint in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle") for side in ("left", "right")
)
"""Rows of every array of joints."""

SHOULDER_WIDTH, HIP_WIDTH = 0.105, 0.065
TORSO, NECK, HEAD = 0.30, 0.03, 0.105
UPPER_ARM, FOREARM, THIGH, SHIN, FOOT = 0.165, 0.155, 0.215, 0.215, 0.035
"""Half widths, lengths and the head's radius; from sole to crown they add up to one height."""


@dataclass(frozen=True)
class Limb:
    """Angles in degrees of one arm or leg."""

    swing: float = 0.0
    """Of the upper part: forward positive, 0 hangs down, 180 points up."""
    bend: float = 0.0
    """At elbow (forward) or knee (backward)."""
    out: float = 4.0
    """Of the upper part: away from the body, to its own side."""
    lower_out: float | None = None
    """The same of the lower part; as the upper part where None."""


@dataclass(frozen=True)
class Pose:
    """One moment of an action."""

    lean: float = 0.0
    """Of the trunk, forward, in degrees."""
    lift: float = 0.0
    """Of the lower foot above the ground, in heights."""
    left_arm: Limb = field(default_factory=Limb)
    right_arm: Limb = field(default_factory=Limb)
    left_leg: Limb = field(default_factory=Limb)
    right_leg: Limb = field(default_factory=Limb)


def _wave(phase: float, shift: float = 0.0) -> float:
    return float(np.sin(2 * np.pi * (phase + shift)))


def _swing_knee(phase: float, most: float, least: float) -> float:
    """Bend of a knee whose hip swings by `sin(phase)`: it bends while the leg comes forward."""
    return least + (most - least) * max(0.0, float(np.cos(2 * np.pi * phase))) ** 1.5


def _standing(phase: float) -> Pose:
    sway = _wave(phase)
    arm, leg = Limb(2 * sway, 8, 9 + 2 * sway), Limb(0, 0, 4)
    return Pose(1.5 * sway, 0.0, arm, arm, leg, leg)


def _walking(phase: float) -> Pose:
    left, right = _wave(phase), _wave(phase, 0.5)
    return Pose(
        3,
        0.0,
        Limb(-26 * left, 16 + 8 * max(0.0, -left), 7),
        Limb(-26 * right, 16 + 8 * max(0.0, -right), 7),
        Limb(28 * left, _swing_knee(phase, 48, 5), 2),
        Limb(28 * right, _swing_knee(phase + 0.5, 48, 5), 2),
    )


def _running(phase: float) -> Pose:
    left, right = _wave(phase), _wave(phase, 0.5)
    return Pose(
        13,
        0.05 * abs(_wave(phase, 0.25)),
        Limb(-48 * left, 92, 8),
        Limb(-48 * right, 92, 8),
        Limb(12 + 46 * left, _swing_knee(phase, 105, 18), 2),
        Limb(12 + 46 * right, _swing_knee(phase + 0.5, 105, 18), 2),
    )


def _jumping(phase: float) -> Pose:
    flight = max(0.0, _wave(phase))  # the cycle's first half is in the air
    crouch = max(0.0, -_wave(phase))
    arms = 20 + 130 * flight - 50 * crouch
    legs = 45 * crouch + 14 * flight
    return Pose(
        16 * crouch,
        0.2 * flight,
        Limb(arms, 18, 14 + 14 * flight),
        Limb(arms, 18, 14 + 14 * flight),
        Limb(legs, 85 * crouch + 34 * flight, 6 + 8 * flight),
        Limb(legs, 85 * crouch + 34 * flight, 6 + 8 * flight),
    )


def _waving(phase: float) -> Pose:
    return Pose(
        0,
        0.0,
        Limb(6, 12, 130, 168 + 34 * _wave(phase)),
        Limb(2 * _wave(phase), 10, 10),
        Limb(0, 0, 5),
        Limb(0, 0, 5),
    )


def _skiing(phase: float) -> Pose:
    sway, push = _wave(phase), 0.5 + 0.5 * _wave(phase, 0.25)
    knees = 56 + 14 * sway
    return Pose(
        30 + 7 * sway,
        0.02,
        Limb(34 + 26 * push, 40, 14),
        Limb(34 + 26 * push, 40, 14),
        Limb(0.62 * knees, knees, 5),
        Limb(0.62 * knees, knees, 5),
    )


ACTIONS: dict[str, Callable[[float], Pose]] = {
    "standing": _standing,
    "walking": _walking,
    "running": _running,
    "jumping": _jumping,
    "waving": _waving,
    "skiing": _skiing,
}
"""The pose at a phase; a cycle goes from 0 to 1."""

STRIDE: dict[str, float] = {"standing": 0.0, "walking": 0.95, "running": 1.7, "jumping": 0.0, "waving": 0.0, "skiing": 1.6}
"""Heights that a figure goes forward in one cycle."""


@dataclass(frozen=True)
class Skeleton:
    """Where everything of a posed figure is, in heights, the middle between its feet's lines at the origin."""

    joints: np.ndarray
    """`[12, 3]` forward, left, down; the ground is at 0, what is above it is negative."""
    pelvis: np.ndarray
    """`[3]`, the middle of the hips."""
    neck: np.ndarray
    """`[3]`, the middle of the shoulders."""
    head: np.ndarray
    """`[3]`, the head's centre."""

    def joint(self, name: str) -> np.ndarray:
        """Return one joint `[3]`."""
        return self.joints[JOINTS.index(name)]


def _direction(swing: float, out: float, side: float) -> np.ndarray:
    a, b = np.deg2rad(swing), np.deg2rad(out)
    return np.array([np.sin(a) * np.cos(b), side * np.sin(b), np.cos(a) * np.cos(b)])


def _chain(start: np.ndarray, limb: Limb, lengths: tuple[float, float], side: float, bend: float) -> list[np.ndarray]:
    middle = start + lengths[0] * _direction(limb.swing, limb.out, side)
    lower = limb.out if limb.lower_out is None else limb.lower_out
    return [start, middle, middle + lengths[1] * _direction(limb.swing + bend, lower, side)]


def skeleton(action: str, phase: float) -> Skeleton:
    """Pose the figure at a phase (any real number) of an action."""
    pose = ACTIONS[action](phase % 1.0)
    lean = np.deg2rad(pose.lean)
    up = np.array([np.sin(lean), 0.0, -np.cos(lean)])
    pelvis, aside = np.zeros(3), np.array([0.0, 1.0, 0.0])
    neck = pelvis + TORSO * up
    rows: dict[str, np.ndarray] = {}
    for name, side, arm, leg in (("left", 1.0, pose.left_arm, pose.left_leg), ("right", -1.0, pose.right_arm, pose.right_leg)):
        arms = _chain(neck + side * SHOULDER_WIDTH * aside, arm, (UPPER_ARM, FOREARM), side, arm.bend)
        legs = _chain(pelvis + side * HIP_WIDTH * aside, leg, (THIGH, SHIN), side, -leg.bend)
        for part, points in (("shoulder elbow wrist", arms), ("hip knee ankle", legs)):
            rows |= {f"{name}_{joint}": point for joint, point in zip(part.split(), points, strict=True)}
    joints = np.stack([rows[name] for name in JOINTS])
    lowest = max(rows["left_ankle"][2], rows["right_ankle"][2])
    shift = np.array([0.0, 0.0, -(lowest + FOOT + pose.lift)])
    return Skeleton(joints + shift, pelvis + shift, neck + shift, neck + (NECK + HEAD) * up + shift)


def project(points: np.ndarray, heading: float) -> np.ndarray:
    """Turn body coordinates `[..., 3]` into the picture's: right, down, and nearness to the viewer; in heights.

    Args:
        points: forward, left, down.
        heading: where the figure looks, in degrees: 0 to the picture's right, 90 to the viewer, 180 to the left.
    """
    a = np.deg2rad(heading)
    forward, left, down = points[..., 0], points[..., 1], points[..., 2]
    return np.stack([forward * np.cos(a) + left * np.sin(a), down, forward * np.sin(a) - left * np.cos(a)], -1)
