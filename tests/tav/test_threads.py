"""Threads that share one network: each gets what it would have got alone."""

import hashlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

import tav
from tav import Base, Clip, Delta, InvertConfig, Latents, Sampler, TuneConfig, Tuner
from tav.config import SampleConfig
from tav.delta import Origin
from tav.errors import InvalidConfig, TavError
from tav.sampling import digest

QUICK = SampleConfig(num_inference_steps=6, guidance_scale=2)
TUNE = TuneConfig(steps=3, learning_rate=1e-3)
INVERT = InvertConfig(num_inference_steps=6)

Work = dict[str, Callable[[], str]]


@pytest.fixture(scope="module")
def tuner(base: Base) -> Tuner:
    return Tuner(base)


@pytest.fixture(scope="module")
def delta(tuner: Tuner, clip: Clip) -> Delta:
    return tuner.tune(clip, TUNE)


@pytest.fixture(scope="module")
def latents(base: Base, tuner: Tuner, clip: Clip, delta: Delta) -> Latents:
    return tav.invert(base, clip, delta, INVERT, net=tuner.net)


def sampling(sampler: Sampler, delta: Delta, latents: Latents | None, prompt: str, **config: object) -> Callable[[], str]:
    asked = QUICK.model_copy(update=config)
    return lambda: sampler.sample(prompt, delta=delta, latents=latents, config=asked).latents_sha256


def together(work: Work) -> dict[str, str]:
    """What each gives when all begin at once."""
    begin = threading.Barrier(len(work))

    def run(one: Callable[[], str]) -> str:
        begin.wait()
        try:
            return one()
        except (TavError, RuntimeError) as error:
            return f"{type(error).__name__}: {error}"

    with ThreadPoolExecutor(len(work)) as pool:
        return dict(zip(work, pool.map(run, work.values()), strict=True))


def test_work_of_every_kind_on_one_network_gives_what_it_gives_alone(
    base: Base, tuner: Tuner, clip: Clip, delta: Delta, latents: Latents
) -> None:
    sampler = Sampler(base, tuner.net)
    whole = Delta(delta.tensors, delta.meta.model_copy(update={"attention": "full", "group_norm": "frame"}))
    longer = Clip(clip.frames[[0, 1, 2, 3, 4, 3, 2]], clip.fps, clip.caption)

    def tuned() -> str:
        made = tuner.tune(longer, TUNE.model_copy(update={"seed": 7})).tensors
        return hashlib.sha256(b"".join(made[name].numpy().tobytes() for name in sorted(made))).hexdigest()

    work: Work = {
        "injected": sampling(sampler, delta, latents, "blue", feature_injection=1.0),
        "plain": sampling(sampler, delta, latents, "green"),
        "cached": sampling(sampler, delta, latents, "yellow", cache_interval=3),
        "other modes": sampling(sampler, whole, latents, "green"),
        "fewer frames": sampling(sampler, delta, None, "a circle", num_frames=2),
        "inverted": lambda: digest(tav.invert(base, longer, delta, INVERT, net=tuner.net).tensor),
        "tuned": tuned,
    }
    alone = {name: one() for name, one in work.items()}
    for _ in range(3):
        assert together(work) == alone


def test_networks_of_their_own_on_one_base_do_not_disturb_each_other(base: Base, delta: Delta, latents: Latents) -> None:
    prompts = [letter * length for letter, length in zip("abcdef", (1, 3, 9, 40, 80, 200), strict=True)]
    work: Work = {prompt: sampling(Sampler(base), delta, latents, prompt, num_inference_steps=2) for prompt in prompts}
    alone = {name: one() for name, one in work.items()}
    assert together(work) == alone


def test_a_video_that_fails_leaves_the_network_to_the_next(base: Base, delta: Delta, latents: Latents) -> None:
    sampler = Sampler(base)

    def stop(_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sampler.sample("blue", delta=delta, latents=latents, config=QUICK, on_step=stop)
    origin = Origin(**(vars(delta.meta.origin) | {"fingerprint": "another"}))
    with pytest.raises(TavError):
        sampler.sample("blue", delta=Delta(delta.tensors, delta.meta.model_copy(update={"origin": origin})), config=QUICK)
    assert sampler.sample("blue", delta=delta, latents=latents, config=QUICK).frames.shape == (5, 16, 16, 3)


def test_a_callback_that_works_with_its_own_network_is_refused_instead_of_waiting_for_itself(
    base: Base, delta: Delta, latents: Latents, clip: Clip
) -> None:
    sampler = Sampler(base)
    with pytest.raises(InvalidConfig, match="another network"):
        sampler.sample("a", delta=delta, config=QUICK, on_step=lambda _: tav.invert(base, clip, delta, INVERT, net=sampler.net))
    seen: list[int] = []
    sampler.sample(
        "a", delta=delta, config=QUICK, on_step=lambda _: seen.append(len(tav.invert(base, clip, delta, INVERT).tensor))
    )
    assert len(seen) == QUICK.num_inference_steps
