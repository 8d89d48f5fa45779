"""Tuning, inversion, sampling and the delta through the public functions."""

import errno
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

import tav
from tav import Base, Clip, Delta, InvertConfig, Latents, Progress, SampleConfig, TuneConfig, Tuner
from tav.ddim import DDIM
from tav.errors import BaseMismatch, CorruptVersion, InvalidClip, InvalidConfig, NanLoss
from tav.inflation import initial_tensors, is_tuned, shapes_of
from tav.tuning import draw_step

CONFIG = TuneConfig(steps=4, learning_rate=1e-3)
SAMPLE = SampleConfig(num_inference_steps=3, guidance_scale=2)


@pytest.fixture(scope="module")
def delta(base: Base, clip: Clip) -> Delta:
    return tav.tune(base, clip, CONFIG)


@pytest.fixture(scope="module")
def noise(base: Base, clip: Clip, delta: Delta) -> Latents:
    return tav.invert(base, clip, delta, InvertConfig(num_inference_steps=3))


def gradients(base: Base, clip: Clip, checkpointing: bool) -> dict[str, torch.Tensor]:
    tuner = Tuner(base)
    # The temporal output projections start at zero, which hides the gradients behind them: start elsewhere.
    values = initial_tensors(base.unet.state_dict(), shapes_of(tuner.net), 0)
    values = {n: v + 0.05 if ".attn_temp.to_out." in n else v for n, v in values.items()}
    tuner.engine.reset(values, CONFIG)
    if checkpointing:
        tuner.net.enable_gradient_checkpointing()
    tuner.net.train()
    mean, std = base.encode_frames(clip.frames)
    tuner._loss(mean, std, base.encode_text([clip.caption]), draw_step(mean, 1000, 0, 0)).backward()
    return {name: p.grad for name, p in tuner.net.named_parameters() if p.grad is not None}


def test_exactly_the_tuned_tensors_get_gradients_the_same_with_and_without_checkpointing(base: Base, clip: Clip) -> None:
    plain, recomputed = gradients(base, clip, False), gradients(base, clip, True)
    names = {name for name, _ in Tuner(base).net.named_parameters() if is_tuned(name)}
    assert plain.keys() == recomputed.keys() == names
    assert all(gradient.abs().max() > 0 for gradient in plain.values())
    assert any(name.startswith("down_blocks") for name in names)
    for name in names:
        assert torch.equal(plain[name], recomputed[name]), name


def test_modes_left_out_are_the_bases_recommendation(base: Base, clip: Clip) -> None:
    advised = replace(base, defaults={"net": {"group_norm": "frame", "attention": "full"}})
    meta = tav.tune(advised, clip, CONFIG).meta
    assert (meta.attention, meta.group_norm) == ("full", "frame")
    meta = tav.tune(advised, clip, CONFIG, attention="causal").meta
    assert (meta.attention, meta.group_norm) == ("causal", "frame")
    assert tav.tune(base, clip, CONFIG).meta.group_norm == "video"


def test_two_runs_with_one_seed_are_bit_identical_and_another_seed_differs(base: Base, clip: Clip, delta: Delta) -> None:
    again = tav.tune(base, clip, CONFIG)
    other = tav.tune(base, clip, CONFIG.model_copy(update={"seed": 1}))
    assert all(torch.equal(again.tensors[n], t) for n, t in delta.tensors.items())
    assert any(not torch.equal(other.tensors[n], t) for n, t in delta.tensors.items())


def test_a_warm_tuner_gives_the_same_delta_as_a_fresh_one(base: Base, clip: Clip, delta: Delta) -> None:
    tuner = Tuner(base)
    tuner.tune(Clip(clip.frames[::-1].copy(), 8.0, "another job"), CONFIG.model_copy(update={"learning_rate": 0.01}))
    warm = tuner.tune(clip, CONFIG)
    assert all(torch.equal(warm.tensors[n], t) for n, t in delta.tensors.items())


def test_a_resumed_job_ends_in_the_same_delta_as_one_left_alone(base: Base, clip: Clip, delta: Delta) -> None:
    kept = {}
    tuner = Tuner(base)

    def keep(progress: Progress) -> None:
        kept[progress.step] = tuner.state()

    tuner.tune(clip, CONFIG, on_step=keep)
    resumed = Tuner(base).tune(clip, CONFIG, resume=kept[2])
    assert all(torch.equal(resumed.tensors[n], t) for n, t in delta.tensors.items())


def test_tuning_leaves_the_base_untouched(base: Base, clip: Clip) -> None:
    before = {n: t.clone() for n, t in base.unet.state_dict().items()}
    tav.tune(base, clip, CONFIG)
    assert all(torch.equal(before[n], t) for n, t in base.unet.state_dict().items())


def test_delta_survives_save_load_and_apply_bit_for_bit(base: Base, delta: Delta, tmp_path: Path) -> None:
    delta.save(tmp_path / "delta.safetensors")
    loaded = Delta.load(tmp_path / "delta.safetensors")
    assert loaded.meta == delta.meta
    net = tav.inflate(base.unet, seed=9)
    loaded.apply(net)
    again = Delta.extract(net, loaded.meta)
    assert all(torch.equal(again.tensors[n], t) for n, t in delta.tensors.items())


def test_applying_a_delta_copies_into_the_existing_tensors(base: Base, delta: Delta) -> None:
    net = tav.inflate(base.unet)
    where = {n: p.data_ptr() for n, p in net.named_parameters()}
    delta.apply(net)
    assert where == {n: p.data_ptr() for n, p in net.named_parameters()}


def test_a_delta_is_refused_on_another_base_by_name(base: Base, other_base: Base, clip: Clip, delta: Delta) -> None:
    for use in (
        lambda: tav.sample(other_base, "a red square", delta=delta, config=SAMPLE),
        lambda: tav.invert(other_base, clip, delta),
    ):
        with pytest.raises(BaseMismatch) as refusal:
            use()
        assert base.name in str(refusal.value) and other_base.name in str(refusal.value)


def test_a_damaged_delta_file_is_refused(delta: Delta, noise: Latents, tmp_path: Path) -> None:
    path = tmp_path / "delta.safetensors"
    delta.save(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CorruptVersion, match=r"delta\.safetensors"):
        Delta.load(path)
    noise.save(tmp_path / "latents.safetensors")
    with pytest.raises(CorruptVersion, match="not a delta"):
        Delta.load(tmp_path / "latents.safetensors")


def test_a_full_disk_is_told_as_the_system_tells_it(delta: Delta, noise: Latents) -> None:
    for kept in (delta, noise):
        with pytest.raises(OSError, match="No space left") as full:
            kept.save("/dev/full")
        assert full.value.errno == errno.ENOSPC


def test_latents_survive_save_and_load(noise: Latents, tmp_path: Path) -> None:
    noise.save(tmp_path / "latents.safetensors")
    loaded = Latents.load(tmp_path / "latents.safetensors")
    assert torch.equal(loaded.tensor, noise.tensor) and loaded.meta == noise.meta


def test_sampling_is_reproducible_and_follows_the_prompt_and_the_latents(base: Base, delta: Delta, noise: Latents) -> None:
    sampler = tav.Sampler(base)
    first = sampler.sample("a red square", delta=delta, latents=noise, config=SAMPLE)
    assert first.frames.shape == (5, 16, 16, 3) and first.fps == 8.0
    assert (sampler.sample("a red square", delta=delta, latents=noise, config=SAMPLE).frames == first.frames).all()
    assert (sampler.sample("blue", delta=delta, latents=noise, config=SAMPLE).frames != first.frames).any()
    assert (sampler.sample("a red square", delta=delta, config=SAMPLE).frames != first.frames).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_tuners_network_and_any_samplers_give_the_same_latents(
    base_folder: Path, clip: Clip, dtype: torch.dtype, tmp_path: Path
) -> None:
    base = Base.load(str(base_folder), dtype=dtype)
    tuner = tav.Tuner(base)
    delta, other = tuner.tune(clip, CONFIG), tuner.tune(clip, CONFIG.model_copy(update={"seed": 1}))
    noise = tav.invert(base, clip, delta, InvertConfig(num_inference_steps=2), net=tuner.net)

    def digest(sampler: tav.Sampler, delta: Delta) -> str | None:
        return sampler.sample("a blue square", delta=delta, latents=noise, config=SAMPLE).latents_sha256

    validated = digest(tav.Sampler(base, tuner.net), delta)
    delta.save(tmp_path / "delta.safetensors")
    stored, cold = Delta.load(tmp_path / "delta.safetensors"), tav.Sampler(Base.load(str(base_folder), dtype=dtype))
    first = digest(cold, stored)
    between = digest(cold, other)
    assert validated is not None and validated == first == digest(cold, stored)
    assert between != first


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_base_in_half_precision_tunes_inverts_and_samples(base_folder: Path, clip: Clip, dtype: torch.dtype) -> None:
    half = Base.load(str(base_folder), dtype=dtype)
    delta = tav.tune(half, clip, CONFIG)
    noise = tav.invert(half, clip, delta, InvertConfig(num_inference_steps=2))
    assert half.unet.dtype == dtype
    assert tav.sample(half, "a red square", delta=delta, latents=noise, config=SAMPLE).frames.shape == (5, 16, 16, 3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_steps_too_small_for_it_also_through_a_resume(
    base_folder: Path, clip: Clip, dtype: torch.dtype
) -> None:
    half, kept = Base.load(str(base_folder), dtype=dtype), {}
    small, tuner = CONFIG.model_copy(update={"learning_rate": 1e-5}), Tuner(half)
    whole = tuner.tune(clip, small, on_step=lambda progress: kept.update({progress.step: tuner.state()}))
    begun = half.unet.state_dict()
    moved = {n: (t - begun[n]).abs().max() for n, t in kept[small.steps].tuned.items() if n in begun}
    assert moved and all(0 < distance < 1e-4 for distance in moved.values())
    resumed = Tuner(half).tune(clip, small, resume=kept[2])
    assert all(torch.equal(resumed.tensors[n], t) for n, t in whole.tensors.items())


def test_strength_retraces_the_inversion_before_the_prompt_counts(base: Base, delta: Delta, noise: Latents) -> None:
    sampler = tav.Sampler(base)

    def frames(prompt: str, strength: float, latents: Latents | None = noise) -> torch.Tensor:
        config = SAMPLE.model_copy(update={"strength": strength})
        return torch.from_numpy(sampler.sample(prompt, delta=delta, latents=latents, config=config).frames)

    assert not torch.equal(frames("blue", 1.0), frames("blue", 0.6))
    assert torch.equal(frames("blue", 0.1), frames("red", 0.1))  # all three steps retrace: the prompt has no say
    assert torch.equal(frames("blue", 0.1, None), frames("blue", 1.0, None))  # without latents there is nothing to retrace


def test_without_latents_any_frame_count_and_size_can_be_sampled(base: Base, delta: Delta, noise: Latents) -> None:
    config = SAMPLE.model_copy(update={"num_frames": 3, "size": (24, 16)})
    assert tav.sample(base, "a square", delta=delta, config=config).frames.shape == (3, 16, 24, 3)
    with pytest.raises(InvalidConfig, match="5 frames of 16x16"):
        tav.sample(base, "a square", delta=delta, latents=noise, config=config)


@pytest.mark.parametrize(("num_frames", "size"), [(1, (24, 40)), (3, (40, 8)), (9, (16, 24))])
def test_clips_of_any_frame_count_and_size_are_tuned_inverted_and_sampled(
    base: Base, num_frames: int, size: tuple[int, int]
) -> None:
    width, height = size
    frames = np.random.default_rng(0).integers(0, 255, (num_frames, height, width, 3), np.uint8)
    odd = Clip(frames, 8.0, "noise")
    delta = tav.tune(base, odd, CONFIG.model_copy(update={"steps": 1}))
    noise = tav.invert(base, odd, delta, InvertConfig(num_inference_steps=2))
    assert noise.tensor.shape == (1, 4, num_frames, height // base.scale, width // base.scale)
    assert tav.sample(base, "x", delta=delta, latents=noise, config=SAMPLE).frames.shape == frames.shape
    more = SAMPLE.model_copy(update={"num_frames": num_frames + 4, "size": (16, 24)})
    assert tav.sample(base, "x", delta=delta, config=more).frames.shape == (num_frames + 4, 24, 16, 3)


def test_a_step_callback_sees_every_step_and_can_stop_the_work(base: Base, clip: Clip) -> None:
    seen: list[Progress] = []

    def stop_at_two(progress: Progress) -> None:
        seen.append(progress)
        if progress.step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tav.tune(base, clip, CONFIG, on_step=stop_at_two)
    assert [(p.phase, p.step, p.total) for p in seen] == [("tuning", 1, 4), ("tuning", 2, 4)]
    assert all(p.loss is not None and p.loss > 0 for p in seen)


def test_a_loss_that_is_not_finite_fails_early_with_advice(base: Base, clip: Clip) -> None:
    with pytest.raises(NanLoss, match="lower the learning rate"):
        tav.tune(base, clip, TuneConfig(steps=5, learning_rate=1e30))


def test_ddim_steps_equal_diffusers_and_inversion_undoes_them(base: Base) -> None:
    config = base.scheduler_config
    ours, theirs = DDIM(config, 10), DDIMScheduler.from_config(config)
    theirs.set_timesteps(10)
    assert ours.timesteps == theirs.timesteps.tolist() == [901, 801, 701, 601, 501, 401, 301, 201, 101, 1]
    x, prediction = torch.randn(1, 4, 2, 8, 8), torch.randn(1, 4, 2, 8, 8)
    for t in ours.timesteps:
        expected = theirs.step(prediction, t, x).prev_sample
        stepped = ours.down(x, prediction, t)
        torch.testing.assert_close(stepped, expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(ours.up(stepped, prediction, t), x, atol=1e-4, rtol=1e-4)


def test_a_clip_without_caption_or_with_an_odd_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidClip, match="no caption"):
        Clip.read(tmp_path / "any.mp4", " ")
    with pytest.raises(InvalidConfig, match="multiples of 8"):
        Clip.read(tmp_path / "any.mp4", "a man", size=(100, 64))
