"""Methods of a suite on the shipped base: each makes a video, and each baseline is what its name says at its limits."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tav import Base, Clip
from tav.errors import BaseUnavailable, InvalidConfig
from tav.eval.methods import METHODS, Workbench
from tav.eval.methods.frames import image_to_image, injected_layers, plug_and_play
from tav.eval.methods.text_to_video import TextToVideoModel
from tav.eval.offline.clips import SCORED, VIDEOS
from tav.eval.offline.oracle import read_clip
from tav.eval.plan import Plan
from tav.eval.suite import Case, SuiteClip

NAME = "orange-triangle-grass"
CLIP = SuiteClip(NAME, VIDEOS / f"{NAME}.mp4", SCORED[NAME].caption, {"num_frames": 2})
EDIT = Case(NAME, "colour", "colour", "a red triangle moving on grass", seed=1)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def base() -> Base:
    """The shipped base, made quick: a few steps of each phase."""
    base = Base.load("offline")
    base.defaults["tune"]["steps"] = 2
    base.defaults["invert"]["num_inference_steps"] = base.defaults["sample"]["num_inference_steps"] = 10
    return base


@pytest.fixture(scope="module")
def bench(base: Base, tmp_path_factory: pytest.TempPathFactory, text_to_video_model: Path) -> Workbench:
    model = TextToVideoModel(str(text_to_video_model), base.device, base.dtype)
    return Workbench(base, tmp_path_factory.mktemp("made"), text_to_video=model)


@pytest.fixture(scope="module")
def source(bench: Workbench) -> Clip:
    return bench.clip(CLIP)


def decoded(base: Base, clip: Clip) -> np.ndarray:
    """The clip through the VAE and back: the most that any latent method can give."""
    return base.decode_latents(base.encode_frames(clip.frames)[0])


def difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(int) - other).mean())


@pytest.mark.parametrize("name", METHODS)
def test_every_method_makes_the_clips_frames_and_the_same_ones_again(name: str, bench: Workbench, source: Clip) -> None:
    first, again = (METHODS[name].sample(bench, CLIP, EDIT) for _ in range(2))
    assert first.frames.shape == source.frames.shape
    assert first.fps == source.fps
    assert (first.frames == again.frames).all()


@pytest.mark.slow
def test_each_ablation_changes_the_video(bench: Workbench) -> None:
    videos = {name: METHODS[name].sample(bench, CLIP, EDIT).frames for name in METHODS}
    for name in METHODS:
        assert name == "tuned" or (videos[name] != videos["tuned"]).any(), name


def test_what_is_kept_is_not_made_again_and_another_seed_is(base: Base, bench: Workbench) -> None:
    kept = bench.tuned(CLIP, seed=1)
    inverted = bench.inverted(CLIP, kept, "seed1")
    steps: list[int] = []
    again = Workbench(base, bench.folder, on_step=lambda progress: steps.append(progress.step))
    assert all((kept.tensors[n] == t).all() for n, t in again.tuned(CLIP, seed=1).tensors.items())
    assert (again.inverted(CLIP, kept, "seed1").tensor == inverted.tensor).all()
    assert steps == []
    other = again.tuned(CLIP, seed=2)
    assert steps == [1, 2]
    assert any((kept.tensors[n] != t).any() for n, t in other.tensors.items())


def test_a_change_of_settings_tunes_again(base: Base, bench: Workbench) -> None:
    bench.tuned(CLIP, seed=1)
    changed = Base.load("offline")
    changed.defaults["tune"] |= {"steps": 3}
    steps: list[int] = []
    Workbench(changed, bench.folder, on_step=lambda progress: steps.append(progress.step)).tuned(CLIP, seed=1)
    assert steps == [1, 2, 3]


def test_an_untuned_delta_adds_nothing(base: Base, bench: Workbench) -> None:
    tensors = bench.untuned(CLIP).tensors
    state = base.unet.state_dict()
    assert all((t.float() == 0).all() for n, t in tensors.items() if ".attn_temp.to_out." in n)
    assert all(torch.equal(t, state[n].half()) for n, t in tensors.items() if n in state)


def test_image_to_image_gives_the_source_back_as_strength_goes_to_nothing(base: Base, source: Clip) -> None:
    away = [
        difference(image_to_image(base, source.frames, EDIT.prompt, s, seed=0), decoded(base, source)) for s in (0.1, 0.5, 1.0)
    ]
    assert away[0] < 5
    assert away[0] < away[1] < away[2]


def test_image_to_image_draws_the_same_noise_for_every_frame(base: Base, source: Clip) -> None:
    twice = source.frames[[0, 0]]
    edited = image_to_image(base, twice, EDIT.prompt, 0.8, seed=0)
    assert difference(edited[0], edited[1]) < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_baselines_work_in_half_precision_where_the_vae_may_stay_in_fp32(source: Clip, dtype: torch.dtype) -> None:
    half = Base.load("offline", dtype=dtype)
    half.defaults["sample"]["num_inference_steps"] = 10
    assert (half.vae.dtype == torch.float32) == (dtype == torch.float16)
    for edited in (
        image_to_image(half, source.frames, EDIT.prompt, 0.1, seed=0),
        plug_and_play(half, source.frames, "", 0.8, 0.5),
    ):
        assert difference(edited, decoded(half, source)) < 8


def test_plug_and_play_with_the_empty_prompt_gives_the_source_back(base: Base, source: Clip) -> None:
    assert difference(plug_and_play(base, source.frames, "", 0.8, 0.5), decoded(base, source)) < 6


def test_plug_and_play_keeps_the_object_in_its_place(base: Base, source: Clip) -> None:
    there = [r.centroid for r in read_clip(source.frames)]
    injected = [r.centroid for r in read_clip(plug_and_play(base, source.frames, EDIT.prompt, 0.8, 0.5))]
    assert np.abs(np.subtract(injected, there)).max() < 0.1


def test_plug_and_play_leaves_the_base_as_it_was(base: Base, source: Clip) -> None:
    noise = torch.randn(3, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    text = base.encode_text(["", "a", "b"])
    before = base.unet(noise, 501, text).sample
    plug_and_play(base, source.frames[:1], EDIT.prompt, 0.8, 0.5)
    assert torch.equal(base.unet(noise, 501, text).sample, before)


def test_plug_and_play_takes_over_the_papers_layers_on_stable_diffusion(base: Base) -> None:
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        sd14 = UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8, block_out_channels=(320, 640, 1280, 1280))
    like_sd = replace(base, unet=sd14)
    block, projections = injected_layers(like_sd)
    assert block == "up_blocks.1.resnets.1"
    attention = sorted({name.split(".transformer_blocks")[0] for name in projections})
    # the paper counts the decoder's layers 0–11, three a level; its 4–11 are these
    assert attention == sorted(f"up_blocks.{n // 3}.attentions.{n % 3}" for n in range(4, 12))
    assert len(projections) == 2 * len(attention)


def test_a_text_to_video_model_sees_the_prompt_alone_and_its_frames_are_brought_to_the_clips(
    bench: Workbench, source: Clip
) -> None:
    own = bench.text_to_video.sample(EDIT.prompt, seed=1)
    assert own.shape == (9, 64, 96, 3)
    longer = SuiteClip(NAME, CLIP.path, CLIP.caption, {"num_frames": 12})
    video = METHODS["cogvideox"].sample(bench, longer, EDIT)
    assert video.frames.shape == (12, *source.frames.shape[1:])
    assert (video.frames[0] == own[0][:, 16:80]).all(), "cropped at the middle, in its own proportions"
    other = SuiteClip("red-ball-grass", VIDEOS / "red-ball-grass.mp4", "a red ball", {"num_frames": 12})
    assert (METHODS["cogvideox"].sample(bench, other, EDIT).frames == video.frames).all()


def test_without_a_text_to_video_model_the_method_says_what_it_needs(base: Base, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="needs a text-to-video model"):
        METHODS["cogvideox"].sample(Workbench(base, tmp_path), CLIP, EDIT)
    with pytest.raises(InvalidConfig, match="--t2v-model"):
        Plan(suite="offline", out=tmp_path, methods=("tuned", "cogvideox")).load_suite()
    nothing = TextToVideoModel(str(tmp_path / "nothing"), base.device, base.dtype)
    with pytest.raises(BaseUnavailable, match="nothing"):
        nothing.sample("a ball", 0)
