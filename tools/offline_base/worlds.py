"""What a base can be trained on: drawn worlds, and how large the parts are that draw them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tav.eval.figures import looks, places, pose, scene, styles, words
from tav.eval.offline import world as shapes

NONE = "none"
"""The value of an attribute that a picture lacks."""


@dataclass(frozen=True)
class Picture:
    """One training picture."""

    pixels: NDArray[np.uint8]
    """`[S, S, 3]`."""
    mask: NDArray[np.bool_]
    """`[S, S]`: what counts more than the ground."""
    captions: tuple[str, ...]
    """Phrasings of the same, and last one that leaves something open."""


@dataclass(frozen=True)
class World:
    """Pictures without end, the words that describe them, and the sizes of the parts."""

    name: str
    side: int
    """Of a picture, in pixels."""
    attributes: Mapping[str, tuple[str, ...]]
    """What a caption says, and the values that each can have."""
    draw: Callable[[np.random.Generator], Picture]
    """A picture that training may see."""
    describe: Callable[[np.random.Generator], tuple[str, tuple[int, ...]]]
    """A caption that training may see, and the number of each attribute's value."""
    texts: Callable[[], list[str]]
    """Every word in every place it can have: what the tokenizer learns from."""
    max_tokens: int
    vocabulary: int
    text_width: int
    text_layers: int
    vae_channels: tuple[int, ...]
    """One level each; every one but the last halves the side."""
    unet_channels: tuple[int, ...]
    heads: int
    pictures: int
    """How many are drawn for the UNet."""
    steps: Mapping[str, int]
    """Of each stage."""

    @property
    def latent_side(self) -> int:
        """Of the VAE's latents."""
        return self.side >> (len(self.vae_channels) - 1)


# --- shapes ---------------------------------------------------------------------------------------------------------


def seen() -> list[tuple[str, str, str]]:
    """The combinations of shapes' world that training draws from: all that are not held out."""
    apart = set(shapes.held_out())
    return [one for one in shapes.combinations() if one not in apart]


_SHAPES_ATTRIBUTES = {"colour": tuple(shapes.COLOURS), "shape": shapes.SHAPES, "ground": tuple(shapes.GROUNDS)}


def _draw_shape(rng: np.random.Generator) -> Picture:
    one = shapes.random_scene(rng, seen())
    phrases = [
        *(shapes.PHRASES[i] for i in rng.permutation(len(shapes.PHRASES))[:4]),
        shapes.PARTIAL[rng.integers(len(shapes.PARTIAL))],
    ]
    captions = tuple(shapes.caption(one.colour, one.shape, one.ground, phrase) for phrase in phrases)
    return Picture(shapes.draw(one), shapes.object_mask(one), captions)


def _describe_shape(rng: np.random.Generator) -> tuple[str, tuple[int, ...]]:
    among = seen()
    one = among[int(rng.integers(len(among)))]
    text = shapes.caption(*one, shapes.PHRASES[rng.integers(len(shapes.PHRASES))])
    return text, tuple(values.index(value) for values, value in zip(_SHAPES_ATTRIBUTES.values(), one, strict=True))


def _shape_texts() -> list[str]:
    phrases = sorted(set(shapes.PHRASES + shapes.PARTIAL))
    return [shapes.caption(*one, phrase) for phrase in phrases for one in shapes.combinations()]


SHAPES = World(
    name="shapes",
    side=64,
    attributes=_SHAPES_ATTRIBUTES,
    draw=_draw_shape,
    describe=_describe_shape,
    texts=_shape_texts,
    max_tokens=24,
    vocabulary=672,
    text_width=96,
    text_layers=2,
    vae_channels=(16, 32, 64),
    unet_channels=(32, 64, 128, 128),
    heads=8,
    pictures=40_000,
    steps={"vae": 2700, "text": 600, "unet": 12_000},
)

# --- figures --------------------------------------------------------------------------------------------------------

PAIRS = 0.12
"""Share of pictures with two figures."""

_FIGURES_ATTRIBUTES = {
    "subject": tuple(looks.BODIES),
    "clothes": tuple(looks.CLOTHES),
    "action": tuple(pose.ACTIONS),
    "place": tuple(places.PLACES),
    "style": tuple(styles.STYLES),
    "headwear": (NONE, *looks.HEADWEAR),
    "thing": (NONE, *looks.THINGS),
}


def _draw_figures(rng: np.random.Generator) -> Picture:
    one = words.random_scene(rng, pairs=PAIRS)
    captions = [words.caption(one, rng) for _ in range(4)]
    return Picture(scene.draw(one), scene.foreground(one), (*captions, words.partial_caption(one, rng)))


def _describe_figure(rng: np.random.Generator) -> tuple[str, tuple[int, ...]]:
    one = words.random_scene(rng)
    first = one.actors[0]
    shown = {**vars(words.of(one)), "headwear": first.headwear or NONE, "thing": first.thing or NONE}
    return words.caption(one, rng), tuple(values.index(shown[name]) for name, values in _FIGURES_ATTRIBUTES.items())


def _figure_texts() -> list[str]:
    rng = np.random.default_rng(20)
    return [words.caption(words.random_scene(rng, pairs=PAIRS), rng) for _ in range(6000)]


FIGURES = World(
    name="figures",
    side=scene.SIDE,
    attributes=_FIGURES_ATTRIBUTES,
    draw=_draw_figures,
    describe=_describe_figure,
    texts=_figure_texts,
    max_tokens=40,
    vocabulary=800,
    text_width=160,
    text_layers=3,
    # After 1,400 steps of 8 crops: 24.8 dB (19.5 on figures) at a quarter of the side, 21.7 (16.2) at an eighth
    # with channels 24, 48, 96, 128; after 3,500 it is 27.8.
    vae_channels=(24, 48, 96),
    unet_channels=(48, 96, 192, 192),
    heads=8,
    pictures=40_000,
    steps={"vae": 6000, "text": 1500, "unet": 40_000},
)

WORLDS = {world.name: world for world in (SHAPES, FIGURES)}
