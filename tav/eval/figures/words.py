"""Captions of scenes, random scenes, and the combinations that training never sees."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tav.eval.figures.looks import BODIES, CLOTHES, HEADWEAR, THINGS
from tav.eval.figures.places import PLACES
from tav.eval.figures.pose import ACTIONS
from tav.eval.figures.scene import Actor, Scene
from tav.eval.figures.styles import STYLES

SUBJECTS, COLOURS, DEEDS, GROUNDS = tuple(BODIES), tuple(CLOTHES), tuple(ACTIONS), tuple(PLACES)

PHRASES: tuple[str, ...] = (
    "{who} is {deed} {where}",
    "{who} is {deed} {where}",
    "{who} {deed} {where}",
    "a picture of {who} {deed} {where}",
    "{where}, {who} is {deed}",
)
"""A caption without its style."""

DRESSED: tuple[str, ...] = (
    "{a} {subject} in {colour}",
    "{a} {subject} in {colour} clothes",
    "{a} {subject} wearing {colour} clothes",
)
HEADED: tuple[str, ...] = ("{dressed} wearing a {headwear}", "{dressed} with a {headwear}")
WITH: tuple[str, ...] = (" with a {thing}", " beside a {thing}")


@dataclass(frozen=True)
class Combination:
    """What a caption of one figure must say, apart from what it wears on its head and what lies beside it."""

    subject: str
    clothes: str
    place: str
    action: str
    style: str


def of(scene: Scene) -> Combination:
    """Return the combination that the scene's first actor shows."""
    first = scene.actors[0]
    return Combination(first.subject, first.clothes, scene.place, first.action, scene.style)


def is_held_out(one: Combination) -> bool:
    """Say whether training never sees the combination: about a tenth of all, every value appears in others."""
    numbers = (
        SUBJECTS.index(one.subject) + 2 * COLOURS.index(one.clothes) + 3 * GROUNDS.index(one.place)
        + 5 * DEEDS.index(one.action) + 7 * list(STYLES).index(one.style)
    )  # fmt: skip
    return numbers % 10 == 7


def _pick(rng: np.random.Generator, among: tuple[str, ...]) -> str:
    return among[int(rng.integers(len(among)))]


def who(actor: Actor, rng: np.random.Generator | None = None) -> str:
    """Describe the actor as a noun phrase; in a random phrasing where there is a generator, else the plainest."""
    dressed, headed = (_pick(rng, some) if rng else some[0] for some in (DRESSED, HEADED))
    text = dressed.format(a="an" if actor.subject[0] in "aeiou" else "a", subject=actor.subject, colour=actor.clothes)
    return headed.format(dressed=text, headwear=actor.headwear) if actor.headwear else text


def caption(scene: Scene, rng: np.random.Generator | None = None) -> str:
    """Say what the scene shows; in a random phrasing where there is a generator, else the plainest."""
    where = PLACES[scene.place][0]
    if len(scene.actors) == 2:
        front, back = sorted(scene.actors, key=lambda actor: -actor.ground)
        text = f"{who(front, rng)} {front.action} in front of {who(back, rng)} {back.action} {where}"
    else:
        only = scene.actors[0]
        text = (_pick(rng, PHRASES) if rng else PHRASES[0]).format(who=who(only, rng), deed=only.action, where=where)
        if only.thing:
            text += (_pick(rng, WITH) if rng else WITH[0]).format(thing=only.thing)
    style = STYLES[scene.style]
    return f"{text}, {style}" if style else text


def partial_caption(scene: Scene, rng: np.random.Generator) -> str:
    """Write a caption that leaves something open: the clothes, the place or the action."""
    front = max(scene.actors, key=lambda actor: actor.ground)
    article, where = ("an" if front.subject[0] in "aeiou" else "a"), PLACES[scene.place][0]
    text = _pick(
        rng,
        (
            f"{article} {front.subject} {where}",
            f"{article} {front.subject} {front.action}",
            f"{who(front, rng)}",
            f"{who(front, rng)} {where}",
        ),
    )
    style = STYLES[scene.style]
    return f"{text}, {style}" if style else text


def random_actor(rng: np.random.Generator, x: float | None = None, ground: float | None = None) -> Actor:
    """Draw a figure at a random moment of a random action, wholly inside the picture."""
    action = _pick(rng, DEEDS)
    front = rng.random() < {"standing": 0.6, "waving": 0.75, "jumping": 0.5}.get(action, 0.25)
    turn = float(rng.uniform(-18, 18))
    heading = 90 + turn if front else (0 if rng.random() < 0.5 else 180) + (turn if rng.random() < 0.5 else 0)
    height = float(rng.uniform(0.56, 0.64 if action == "jumping" else 0.74))
    return Actor(
        subject=_pick(rng, SUBJECTS),
        clothes=_pick(rng, COLOURS),
        action=action,
        headwear=_pick(rng, HEADWEAR) if rng.random() < 0.4 else None,
        x=float(rng.uniform(0.5 * height, 1 - 0.5 * height)) if x is None else x,
        ground=float(rng.uniform(0.78, 0.93)) if ground is None else ground,
        height=height,
        heading=heading,
        phase=float(rng.random()),
        thing=_pick(rng, tuple(THINGS)) if rng.random() < 0.25 else None,
    )


def random_scene(rng: np.random.Generator, *, held_out: bool = False, pairs: float = 0.0) -> Scene:
    """Draw a scene whose combinations training sees, or never sees.

    Args:
        rng: where chance comes from.
        held_out: which of the two.
        pairs: share of scenes with two actors that hide each other in part.
    """
    while True:
        place, style = _pick(rng, GROUNDS), "plain" if rng.random() < 0.4 else _pick(rng, tuple(STYLES))
        if rng.random() < pairs:
            middle, apart = float(rng.uniform(0.4, 0.6)), float(rng.uniform(0.04, 0.2))
            front = random_actor(rng, middle - apart, float(rng.uniform(0.88, 0.93)))
            back = random_actor(rng, middle + apart, float(rng.uniform(0.78, 0.84)))
            actors: tuple[Actor, ...] = (front, back) if rng.random() < 0.5 else (back, front)
            actors = tuple(replace(actor, thing=None) for actor in actors)
        else:
            actors = (random_actor(rng),)
        scene = Scene(actors, place, style, int(rng.integers(2**31)))
        shown = [Combination(a.subject, a.clothes, place, a.action, style) for a in actors]
        if all(is_held_out(one) is held_out for one in shown):
            return scene
