"""Numbers at their ends: seeds, sizes against the base's own scale, inversions and samplings of a single step."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

import tav
from tav import Base, Clip, Delta, InvertConfig, SampleConfig, TuneConfig
from tav.config import SchedulerName
from tav.ddim import DDIM
from tav.delta import DeltaMeta, Origin
from tav.errors import InvalidConfig
from tests.tav.conftest import SCHEDULER, SD21_SCHEDULER


@pytest.fixture(scope="module")
def delta(base: Base, clip: Clip) -> Delta:
    return tav.tune(base, clip, TuneConfig(steps=1))


@pytest.mark.parametrize("seed", [2**63, 2**64 - 1, 2**64, 2**70, -1])
def test_a_seed_that_is_none_is_refused_where_it_is_given(seed: int) -> None:
    for kind in (TuneConfig, SampleConfig):
        with pytest.raises(InvalidConfig, match="seed"):
            kind(seed=seed)


def test_the_largest_seed_tunes_and_samples(base: Base, clip: Clip) -> None:
    seed = 2**63 - 1
    delta = tav.tune(base, clip, TuneConfig(steps=1, seed=seed))
    config = SampleConfig(num_inference_steps=1, seed=seed)
    assert tav.sample(base, "blue", delta=delta, config=config).frames.shape == clip.frames.shape


@pytest.fixture(scope="module")
def deep(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Base:
    """A base whose VAE halves four times: 16 pixels a latent."""
    folder = Path(shutil.copytree(base_folder, tmp_path_factory.mktemp("deep") / "base"))
    levels = {
        "block_out_channels": (8,) * 5,
        "down_block_types": ("DownEncoderBlock2D",) * 5,
        "up_block_types": ("UpDecoderBlock2D",) * 5,
    }
    config = json.loads((folder / "vae/config.json").read_text())
    AutoencoderKL.from_config(config | levels).save_pretrained(folder / "vae")
    return Base.load(str(folder))


def test_a_size_that_the_base_s_latents_cannot_hold_is_refused_everywhere(base: Base, deep: Base, delta: Delta) -> None:
    for one, width, height, scale in ((base, 17, 16, 2), (base, 16, 7, 2), (deep, 24, 16, 16), (deep, 32, 40, 16)):
        clip = Clip(np.zeros((2, height, width, 3), np.uint8), 8.0, "a red square")
        meta = DeltaMeta(origin=Origin.of(one, clip), attention="sparse_causal", group_norm="video", tune=None)
        of_clip = Delta(delta.tensors, meta)
        told = pytest.raises(InvalidConfig, match=rf"size {width}x{height} will not do .* multiples of {scale}$")
        with told:
            tav.tune(one, clip, TuneConfig(steps=1))
        with told:
            tav.invert(one, clip, of_clip, InvertConfig(num_inference_steps=1))
        with told:
            tav.sample(one, "blue", delta=of_clip, config=SampleConfig(num_inference_steps=1))
    whole = Clip(np.zeros((2, 48, 32, 3), np.uint8), 8.0, "a red square")
    assert deep.decode_latents(deep.encode_frames(whole.frames)[0]).shape == whole.frames.shape


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("scheduler", ["ddim", "dpmpp_2m", "unipc"])
def test_a_grid_begins_where_an_inversion_of_one_step_ended(offset: int, scheduler: SchedulerName) -> None:
    config = SCHEDULER | {"steps_offset": offset}
    inversion = DDIM(config, 1)
    assert inversion.timesteps == [offset]
    for steps in (1, 2, 10):
        assert DDIM(config, steps, start=inversion.timesteps[0], even=scheduler != "ddim").timesteps[0] == offset


@pytest.mark.parametrize("schedule", [SCHEDULER, SCHEDULER | {"steps_offset": 0}, SD21_SCHEDULER])
@pytest.mark.parametrize("scheduler", ["ddim", "dpmpp_2m", "unipc"])
def test_an_inversion_of_one_step_leads_back_to_the_clip(
    base: Base, clip: Clip, delta: Delta, schedule: dict[str, object], scheduler: SchedulerName
) -> None:
    """At timestep 0 or 1 latents hold the clip but for a trace of noise; at the end of a schedule they are noise."""
    one = replace(base, scheduler_config=schedule)
    latents = tav.invert(one, clip, delta, InvertConfig(num_inference_steps=1))
    through = one.decode_latents(one.encode_frames(clip.frames)[0]).astype(int)
    for steps in (1, 3):
        config = SampleConfig(num_inference_steps=steps, scheduler=scheduler, guidance_scale=1.0)
        frames = tav.sample(one, clip.caption, delta=delta, latents=latents, config=config).frames
        assert schedule is SD21_SCHEDULER or np.abs(frames - through).mean() < 3
        assert torch.isfinite(latents.tensor).all()
