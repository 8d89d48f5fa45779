"""Cheaper sampling: guidance in part of the steps, and features that are reused between steps."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

import tav
from tav import Base, Clip, Delta, InvertConfig, Latents, SampleConfig, Sampler, TuneConfig
from tav.caching import FeatureCache
from tav.config import SchedulerName
from tav.errors import InvalidConfig
from tav.inflation import is_tuned

STEPS = 6
SCHEDULERS: tuple[SchedulerName, ...] = ("ddim", "dpmpp_2m", "unipc")


@pytest.fixture(scope="module")
def delta(base: Base, clip: Clip) -> Delta:
    return tav.tune(base, clip, TuneConfig(steps=3, learning_rate=1e-3))


@pytest.fixture(scope="module")
def latents(base: Base, clip: Clip, delta: Delta) -> Latents:
    return tav.invert(base, clip, delta, InvertConfig(num_inference_steps=STEPS))


@pytest.fixture(scope="module")
def sampler(base: Base) -> Sampler:
    return Sampler(base)


Draw = tuple[str, list[tuple[int, bool]]]


def draw(sampler: Sampler, delta: Delta, latents: Latents | None, **config: Any) -> Draw:
    """A video's digest; of each step, how many predictions of the clip it took and whether the whole network made them."""
    settings = SampleConfig(**{"num_inference_steps": STEPS, "guidance_scale": 3.0, **config})
    with counted(sampler) as steps:
        video = sampler.sample("a blue square", delta=delta, latents=latents, config=settings)
    return video.latents_sha256, steps


@contextmanager
def counted(sampler: Sampler) -> Iterator[list[tuple[int, bool]]]:
    net, steps = sampler.net, []

    def first(module: Any, args: tuple[torch.Tensor, ...]) -> None:
        steps.append((len(args[0]) // net.context.num_frames, False))

    def middle(module: Any, args: tuple[torch.Tensor, ...]) -> None:
        steps[-1] = (steps[-1][0], True)

    hooks = [net.conv_in.register_forward_pre_hook(first), net.mid_block.register_forward_pre_hook(middle)]
    yield steps
    for hook in hooks:
        hook.remove()


def whole(*rows: int) -> list[tuple[int, bool]]:
    return [(n, True) for n in rows]


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_all_steps_guided_and_all_whole_is_the_same_video(
    sampler: Sampler, delta: Delta, latents: Latents, scheduler: SchedulerName
) -> None:
    held = {"scheduler": scheduler, "strength": 0.8, "feature_injection": 0.5}
    plain = draw(sampler, delta, latents, **held)
    assert plain[1] == whole(1, 3, 3, 2, 2, 2)
    assert draw(sampler, delta, latents, **held, guidance_interval=(0, 1), cache_interval=1) == plain


def test_steps_outside_the_guidance_interval_take_one_prediction(sampler: Sampler, delta: Delta, latents: Latents) -> None:
    for scheduler in SCHEDULERS:
        made, steps = draw(sampler, delta, latents, scheduler=scheduler, guidance_interval=(1 / 3, 2 / 3))
        assert steps == whole(1, 1, 2, 2, 1, 1)
        assert made != draw(sampler, delta, latents, scheduler=scheduler)[0]
    held = {"strength": 0.8, "feature_injection": 0.5}
    assert draw(sampler, delta, latents, **held, guidance_interval=(0, 1 / 3))[1] == whole(1, 3, 2, 1, 1, 1)
    assert draw(sampler, delta, latents, guidance_interval=(0, 0.5), guidance_scale=1.0)[1] == whole(1, 1, 1, 1, 1, 1)
    assert draw(sampler, delta, None, guidance_interval=(0.5, 1))[1] == whole(1, 1, 1, 2, 2, 2)


def test_an_interval_in_which_no_step_falls_follows_the_prompt_alone(sampler: Sampler, delta: Delta, latents: Latents) -> None:
    settings = {"num_inference_steps": STEPS, "guidance_interval": (0.0, 0.01)}
    free = sampler.sample("blue", delta=delta, latents=latents, config=SampleConfig(**settings, guidance_scale=9.0)).frames
    alone = sampler.sample("blue", delta=delta, latents=latents, config=SampleConfig(**settings, guidance_scale=1.0)).frames
    assert abs(free.astype(int) - alone).max() <= 1  # the prompt was encoded in another batch


def test_between_whole_predictions_the_deep_layers_rest(sampler: Sampler, delta: Delta, latents: Latents) -> None:
    for scheduler in SCHEDULERS:
        made, steps = draw(sampler, delta, latents, scheduler=scheduler, cache_interval=2)
        assert steps == [(2, True), (2, False)] * 3
        assert made != draw(sampler, delta, latents, scheduler=scheduler)[0]
        assert draw(sampler, delta, latents, scheduler=scheduler, cache_interval=2)[0] == made
    assert [is_whole for _, is_whole in draw(sampler, delta, None, cache_interval=4)[1]] == [True, *[False] * 3, True, False]


def test_other_rows_than_the_step_befores_are_predicted_whole(sampler: Sampler, delta: Delta, latents: Latents) -> None:
    held = {"strength": 2 / 3, "feature_injection": 2 / 3, "cache_interval": 9}
    # two steps retrace and reuse nothing, two are injected, two are not
    assert draw(sampler, delta, latents, **held)[1] == [*whole(1, 1), (3, True), (3, False), (2, True), (2, False)]
    # the source and the prompt, then guidance's two: as many rows, but others
    steps = draw(sampler, delta, latents, **held | {"strength": 1.0}, guidance_interval=(2 / 3, 1), noise_blend=0.5)[1]
    assert steps == [(2, True), *[(2, False)] * 3, (2, True), (2, False)]


def test_a_prediction_from_the_same_input_is_the_same_shallow_or_whole(base: Base, sd21: Base) -> None:
    for each in (base, sd21):
        net = tav.inflate(each.unet)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for name, tensor in net.named_parameters():
                if is_tuned(name):
                    tensor.copy_(0.1 * torch.randn(tensor.shape, generator=generator))
            cache = FeatureCache(net, 2)
            x, text = torch.randn(1, 4, 3, 8, 8, generator=generator), each.encode_text(["a red square"])
            first, again, other = (cache.predict(x * scale, 500, text, rows="one") for scale in (1, 1, 2))
            assert (again == first).all()
            assert (other == net(2 * x, 500, text)).all()


def test_a_shallow_prediction_follows_a_swap_and_sizes_that_do_not_halve(sampler: Sampler, delta: Delta) -> None:
    small = {"size": (20, 12), "num_frames": 2, "cache_interval": 3}
    made, steps = draw(sampler, delta, None, **small)
    assert [is_whole for _, is_whole in steps] == [True, False, False] * 2
    doubled = Delta({name: 2 * tensor for name, tensor in delta.tensors.items()}, delta.meta)
    assert draw(sampler, doubled, None, **small)[0] != made
    assert draw(sampler, delta, None, **small)[0] == made


@pytest.mark.parametrize(
    "wrong", [{"guidance_interval": i} for i in [(0.5, 0.5), (0.6, 0.2), (-0.1, 1), (0, 1.1), (0,)]] + [{"cache_interval": 0}]
)
def test_settings_that_mean_nothing_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidConfig, match=next(iter(wrong))):
        SampleConfig(**wrong)
