"""The world of figures: drawn the same every time, and what it says of itself is what is drawn."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter

import numpy as np
import pytest

from tav.eval.figures.looks import BODIES, CLOTHES
from tav.eval.figures.places import PLACES, draw_place
from tav.eval.figures.pose import ACTIONS, FOOT, JOINTS, SHIN, THIGH, skeleton
from tav.eval.figures.scene import BACKGROUND, Actor, Scene, draw, draw_clip, truth
from tav.eval.figures.styles import STYLES
from tav.eval.figures.words import caption, is_held_out, of, random_scene

STEP = 1 / 8


def scenes(count: int, **options: float) -> list[Scene]:
    rng = np.random.default_rng(5)
    return [random_scene(rng, pairs=0.3) for _ in range(count)]


def test_a_scene_is_drawn_the_same_every_time_and_at_any_size() -> None:
    for scene in scenes(6):
        picture = draw(scene, 0.3)
        assert np.array_equal(picture, draw(scene, 0.3))
        if scene.style == "plain":
            large = draw(scene, 0.3, 256).reshape(128, 2, 128, 2, 3).mean((1, 3))
            assert np.abs(large - picture).mean() < 6


@pytest.mark.parametrize("action", ACTIONS)
def test_bones_keep_their_lengths_and_feet_the_ground(action: str) -> None:
    for phase in np.linspace(0, 1, 13):
        figure = skeleton(action, float(phase))
        for side in ("left", "right"):
            hip, knee, ankle = (figure.joint(f"{side}_{name}") for name in ("hip", "knee", "ankle"))
            assert np.linalg.norm(knee - hip) == pytest.approx(THIGH)
            assert np.linalg.norm(ankle - knee) == pytest.approx(SHIN)
        lowest = figure.joints[:, 2].max()
        assert lowest <= -FOOT + 1e-9 and lowest > -FOOT - 0.25
    assert np.allclose(skeleton(action, 0.25).joints, skeleton(action, 7.25).joints), "a cycle repeats"


def test_every_joint_lies_on_its_own_figure() -> None:
    for scene in scenes(12):
        told = truth(scene)
        for joints, silhouette in zip(told.joints, told.silhouettes, strict=True):
            at = np.floor(joints * 128).astype(int)
            within = ((at >= 0) & (at < 128)).all(1)
            assert within.sum() >= len(JOINTS) // 2
            assert silhouette[at[within, 1], at[within, 0]].all()


def test_flow_leads_to_the_same_thing_in_the_next_frame() -> None:
    moved = left = 0.0
    for number, scene in enumerate(scenes(10)):
        scene = dataclasses.replace(scene, style="plain", camera_speed=0.2 * (number % 2))
        first, second = (draw(scene, time).astype(float) for time in (0.0, STEP))
        told = truth(scene, 0.0, STEP)
        y, x = np.mgrid[:128, :128]
        to_x, to_y = (np.round(v).astype(int) for v in (x + told.flow[..., 0], y + told.flow[..., 1]))
        inside = (to_x >= 0) & (to_x < 128) & (to_y >= 0) & (to_y < 128) & (told.nearest != BACKGROUND)
        moved += float(np.median(np.abs(second[to_y[inside], to_x[inside]] - first[inside])))
        left += float(np.median(np.abs(second[inside] - first[inside])))
    assert moved < 0.2 * left


def test_a_camera_that_pans_moves_the_place_and_nothing_else() -> None:
    for place in PLACES:
        here, further = (draw_place(place, 3, 128, camera) for camera in (0.0, 8 / 128))
        assert np.abs(here[:, 8:] - further[:, :-8]).mean() < 0.5
    scene = Scene((Actor("man", "red", "standing"),), "grass", camera_speed=0.5)
    assert np.allclose(truth(scene).flow[:8, :, 0], -0.5 * STEP * 128)


def test_the_figure_that_stands_lower_hides_the_other() -> None:
    front, back = Actor("man", "red", "standing", x=0.5, ground=0.92), Actor("bear", "blue", "standing", x=0.53, ground=0.8)
    for actors, order in (((front, back), [0, 1]), ((back, front), [1, 0])):
        told = truth(Scene(actors, "snow"))
        assert told.order == order
        both = told.silhouettes.all(0)
        assert both.any() and (told.nearest[both] == order[0]).all()


def test_two_figures_cross() -> None:
    scene = Scene(
        (
            Actor("robot", "red", "walking", x=0.2, rate=0.5),
            Actor("woman", "blue", "walking", x=0.8, ground=0.8, heading=180, rate=0.5),
        ),
        "street",
    )
    places = np.array([truth(scene, i * STEP).joints[..., 0].mean(1) for i in range(16)])
    assert places[0, 0] < places[0, 1] and places[-1, 0] > places[-1, 1]
    assert draw_clip(scene, 3, STEP, 64).shape == (3, 64, 64, 3)


def test_every_value_changes_the_picture() -> None:
    base = Scene((Actor("man", "red", "standing", heading=90),), "grass")
    seen = {
        hashlib.sha256(draw(dataclasses.replace(base, **change)).tobytes()).hexdigest()
        for change in (
            *({"place": place} for place in PLACES),
            *({"style": style} for style in STYLES),
            *(
                {"actors": (dataclasses.replace(base.actors[0], **one),)}
                for one in (
                    *({"subject": subject} for subject in BODIES),
                    *({"clothes": clothes} for clothes in CLOTHES),
                    *({"headwear": kind} for kind in ("hat", "crown", "cap")),
                    *({"thing": kind} for kind in ("ball", "watermelon")),
                    *({"action": action} for action in ACTIONS),
                )
            ),
        )
    }
    assert len(seen) == 1 + 5 + 3 + 5 + 5 + 3 + 2 + 5


def test_captions_say_what_is_drawn() -> None:
    rng = np.random.default_rng(1)
    for scene in scenes(30):
        for text in (caption(scene), caption(scene, rng)):
            assert PLACES[scene.place][0] in text and text.endswith(STYLES[scene.style])
            for actor in scene.actors:
                said = [actor.subject, actor.clothes, actor.action, actor.headwear or "", actor.thing or ""]
                assert all(word in text for word in said), text
    assert caption(Scene((Actor("astronaut", "red", "skiing", "hat", thing="ball"),), "moon", "pencil")) == (
        "an astronaut in red wearing a hat is skiing on the moon with a ball, pencil sketch"
    )


def test_a_tenth_of_the_combinations_is_held_out_and_no_value_with_it() -> None:
    rng = np.random.default_rng(2)
    apart = [of(random_scene(rng, held_out=True)) for _ in range(300)]
    seen = [of(random_scene(rng)) for _ in range(300)]
    assert all(map(is_held_out, apart)) and not any(map(is_held_out, seen))
    for field in dataclasses.fields(apart[0]):
        values = [Counter(getattr(one, field.name) for one in group) for group in (apart, seen)]
        assert values[0].keys() == values[1].keys()
