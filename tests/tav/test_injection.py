"""Feature injection: what the edit takes over from the clip's own reconstruction."""

import numpy as np
import pytest
import torch

import tav
from tav import Base, Clip, Delta, InvertConfig, Latents, Sampler, TuneConfig, VideoUNet
from tav.config import SampleConfig
from tav.errors import InvalidConfig
from tav.video import Frames

PLAIN = SampleConfig(num_inference_steps=4, guidance_scale=3.0)
INJECTED = PLAIN.model_copy(update={"feature_injection": 1.0})


@pytest.fixture(scope="module")
def delta(base: Base, clip: Clip) -> Delta:
    return tav.tune(base, clip, TuneConfig(steps=4, learning_rate=1e-3))


@pytest.fixture(scope="module")
def latents(base: Base, clip: Clip, delta: Delta) -> Latents:
    return tav.invert(base, clip, delta, InvertConfig(num_inference_steps=4))


@pytest.fixture(scope="module")
def sampler(base: Base) -> Sampler:
    return Sampler(base)


def off(one: Frames, other: Frames) -> int:
    return int(np.abs(one.astype(int) - other).max())


def test_an_edit_that_takes_over_the_last_layer_is_the_reconstruction(sampler: Sampler, delta: Delta, latents: Latents) -> None:
    again = sampler.sample("", delta=delta, latents=latents, config=PLAIN.model_copy(update={"guidance_scale": 1.0})).frames
    whole = INJECTED.model_copy(update={"injected_layers": ("conv_out",)})
    for strength in (1.0, 0.5):
        config = whole.model_copy(update={"strength": strength})
        assert off(sampler.sample("blue", delta=delta, latents=latents, config=config).frames, again) <= 1
    assert off(sampler.sample("blue", delta=delta, latents=latents, config=PLAIN).frames, again) > 1


def test_injection_draws_an_edit_nearer_to_the_clip(sampler: Sampler, delta: Delta, latents: Latents, clip: Clip) -> None:
    up = tuple(f"up_blocks.{level}.resnets.{i}" for level in range(4) for i in range(2))
    config = INJECTED.model_copy(update={"injected_layers": up})
    again = sampler.sample("", delta=delta, latents=latents, config=PLAIN.model_copy(update={"guidance_scale": 1.0})).frames
    free, held = (sampler.sample("blue", delta=delta, latents=latents, config=c).frames.astype(int) for c in (PLAIN, config))
    assert np.abs(held - again).mean() < np.abs(free - again).mean()


def test_injection_ends_with_its_share_of_the_steps(sampler: Sampler, delta: Delta, latents: Latents) -> None:
    quarter, half, whole = (
        sampler.sample(
            "blue", delta=delta, latents=latents, config=PLAIN.model_copy(update={"feature_injection": share})
        ).frames
        for share in (0.25, 0.5, 1.0)
    )
    assert off(quarter, half) > 0
    assert off(half, whole) > 0


def test_the_source_stays_the_clip_where_noise_is_blended_in(sampler: Sampler, delta: Delta, latents: Latents) -> None:
    again = sampler.sample("", delta=delta, latents=latents, config=PLAIN.model_copy(update={"guidance_scale": 1.0})).frames
    config = INJECTED.model_copy(update={"injected_layers": ("conv_out",), "noise_blend": 0.5, "strength": 0.5})
    blended = sampler.sample("blue", delta=delta, latents=latents, config=config).frames
    assert off(blended, again) > 1  # another start, the same noise taken off at every step
    other = sampler.sample("red", delta=delta, latents=latents, config=config).frames
    assert off(blended, other) <= 1


def test_without_inverted_latents_there_is_nothing_to_inject(sampler: Sampler, delta: Delta) -> None:
    plain, injected = (sampler.sample("blue", delta=delta, config=config).frames for config in (PLAIN, INJECTED))
    assert (plain == injected).all()


def test_a_video_without_injection_is_the_same_after_one_with_it(sampler: Sampler, delta: Delta, latents: Latents) -> None:
    before = sampler.sample("blue", delta=delta, latents=latents, config=PLAIN).frames
    sampler.sample("blue", delta=delta, latents=latents, config=INJECTED)
    assert (sampler.sample("blue", delta=delta, latents=latents, config=PLAIN).frames == before).all()


def test_an_unknown_layer_is_named(sampler: Sampler, delta: Delta, latents: Latents) -> None:
    config = INJECTED.model_copy(update={"injected_layers": ("up_blocks.9",)})
    with pytest.raises(InvalidConfig, match=r"up_blocks\.9"):
        sampler.sample("blue", delta=delta, latents=latents, config=config)


def called_in_a_prediction(net: VideoUNet) -> set[str]:
    seen: set[str] = set()
    hooks = [module.register_forward_hook(lambda *_, name=name: seen.add(name)) for name, module in net.named_modules() if name]
    with torch.inference_mode():
        net(torch.randn(1, 4, 2, 8, 8), 10, torch.randn(1, 5, 32))
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.slow
def test_every_layer_and_block_that_the_network_calls_can_be_injected_and_every_other_is_refused(
    sampler: Sampler, delta: Delta, latents: Latents
) -> None:
    called = called_in_a_prediction(sampler.net)
    assert {"down_blocks.0", "mid_block", "up_blocks.1.attentions.0", "up_blocks.1.resnets.1", "conv_in"} <= called
    one = INJECTED.model_copy(update={"num_inference_steps": 1, "guidance_scale": 1.0})
    config = latents.meta.model_copy(update={"invert": InvertConfig(num_inference_steps=1)})
    short = Latents(latents.tensor, config)
    names = [name for name, _ in sampler.net.named_modules()]
    blocks = [name for name in names if len(name.split(".")) < 4]
    for name in dict.fromkeys([*blocks, *names[::5], *(n for n in names if n.endswith(("attn1", "attn2", "attn_temp")))]):
        asked = one.model_copy(update={"injected_layers": (name,)})
        if name in called:
            assert sampler.sample("blue", delta=delta, latents=short, config=asked).frames.shape == (5, 16, 16, 3), name
        else:
            with pytest.raises(InvalidConfig, match=rf"'{name}' is not one layer .* name one of"):
                sampler.sample("blue", delta=delta, latents=short, config=asked)
    assert not any(module._forward_hooks for module in sampler.net.modules())


def test_a_block_s_outputs_are_all_taken(sampler: Sampler, delta: Delta, latents: Latents) -> None:
    plain = PLAIN.model_copy(update={"guidance_scale": 1.0})
    blocks = tuple(f"{way}_blocks.{level}" for way in ("down", "up") for level in range(4))
    whole = plain.model_copy(update={"feature_injection": 1.0, "injected_layers": blocks})
    again = sampler.sample("", delta=delta, latents=latents, config=plain).frames
    assert off(sampler.sample("blue", delta=delta, latents=latents, config=whole).frames, again) <= 1
    assert off(sampler.sample("blue", delta=delta, latents=latents, config=plain).frames, again) > 1
