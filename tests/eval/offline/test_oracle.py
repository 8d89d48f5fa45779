"""The oracle reads the drawn world right: plain, blurred, noisy, and after the shipped autoencoder."""

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageFilter

from tav.bases import OFFLINE
from tav.eval.offline.oracle import read, read_clip
from tav.eval.offline.world import Scene, draw, random_scene

PICTURES = 500
BAR = 0.97


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    """Scenes of every kind."""
    rng = np.random.default_rng(1)
    return [random_scene(rng) for _ in range(PICTURES)]


@pytest.fixture(scope="module")
def pictures(scenes: list[Scene]) -> np.ndarray:
    """Their pictures, uint8 `[500, 64, 64, 3]`."""
    return np.stack([draw(scene) for scene in scenes])


def blurred(picture: np.ndarray) -> np.ndarray:
    """Out of focus by more than a pixel."""
    return np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(1.3)))


def noisy(picture: np.ndarray) -> np.ndarray:
    """With noise of 12 levels on every channel."""
    grain = np.random.default_rng(int(picture.sum())).normal(0, 12, picture.shape)
    return np.clip(picture + grain, 0, 255).astype(np.uint8)


def assert_read_right(pictures: np.ndarray, scenes: list[Scene]) -> None:
    """Each attribute right on the bar's share of the pictures, and the object found where it is."""
    got = read_clip(pictures)
    for attribute in ("colour", "shape", "ground"):
        share = np.mean([getattr(g, attribute) == getattr(s, attribute) for g, s in zip(got, scenes, strict=True)])
        assert share >= BAR, f"{attribute}: {share:.3f}"
    miss = [np.hypot(g.centroid[0] - s.x, g.centroid[1] - s.y) * 64 for g, s in zip(got, scenes, strict=True)]
    assert np.nanmedian(miss) < 1.5


@pytest.mark.parametrize("harm", [np.asarray, blurred, noisy], ids=["plain", "blurred", "noisy"])
def test_every_attribute_is_read_off_ground_truth(
    harm: Callable[[np.ndarray], np.ndarray], scenes: list[Scene], pictures: np.ndarray
) -> None:
    assert_read_right(np.stack([harm(p) for p in pictures]), scenes)


@pytest.mark.slow
def test_every_attribute_is_read_after_the_autoencoder(scenes: list[Scene], pictures: np.ndarray) -> None:
    torch = pytest.importorskip("torch")
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(str(OFFLINE / "vae")).float().eval()
    x = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        y = torch.cat([vae.decode(vae.encode(part).latent_dist.mean).sample for part in x.split(50)])
    again = ((y.clamp(-1, 1) + 1) * 127.5).round().permute(0, 2, 3, 1).to(torch.uint8).numpy()
    assert_read_right(again, scenes)


def test_a_picture_without_an_object_has_neither_colour_nor_shape() -> None:
    from tav.eval.offline.world import GROUNDS, draw_ground

    for ground in GROUNDS:
        got = read(np.clip(draw_ground(ground, 5, 64), 0, 255).astype(np.uint8))
        assert (got.colour, got.shape, got.ground) == (None, None, ground)


def test_a_large_picture_reads_like_a_small_one() -> None:
    scene = Scene("purple", "star", "sand", 0.4, 0.6, 0.2, 3)
    small, large = read(draw(scene, 64)), read(draw(scene, 256))
    assert (large.colour, large.shape, large.ground) == (small.colour, small.shape, small.ground) == ("purple", "star", "sand")
    assert np.allclose(small.centroid, large.centroid, atol=1 / 64)
