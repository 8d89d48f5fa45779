"""The shipped base: Stable Diffusion 1.4's layout, small enough to ship, and a training that resumes exactly."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from torch import nn

from tav.bases import OFFLINE
from tav.eval.offline.world import held_out
from tools.offline_base import parts, text, unet, vae
from tools.offline_base.checkpoint import load_state, save_state
from tools.offline_base.evaluate import load, prompts
from tools.offline_base.unet import rate_at
from tools.offline_base.worlds import SHAPES, WORLDS, seen


def test_the_folder_holds_the_parts_of_stable_diffusion() -> None:
    index = json.loads((OFFLINE / "model_index.json").read_text())
    assert {k: v[1] for k, v in index.items() if isinstance(v, list) and v[1]} == {
        "scheduler": "PNDMScheduler",
        "text_encoder": "CLIPTextModel",
        "tokenizer": "CLIPTokenizer",
        "unet": "UNet2DConditionModel",
        "vae": "AutoencoderKL",
    }
    unet = json.loads((OFFLINE / "unet" / "config.json").read_text())
    assert unet["down_block_types"] == ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"]
    assert unet["up_block_types"] == ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3
    assert (unet["in_channels"], unet["out_channels"]) == (4, 4)


def test_the_folder_is_at_most_thirty_megabytes() -> None:
    assert sum(f.stat().st_size for f in OFFLINE.rglob("*") if f.is_file()) <= 30_000_000


def test_diffusers_own_pipeline_loads_it_without_a_dtype_and_draws() -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(OFFLINE)
    pipeline.set_progress_bar_config(disable=True)
    assert {part.dtype for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder)} == {torch.float32}
    picture = pipeline("a red ball on grass", num_inference_steps=2, output_type="np").images[0]
    assert picture.shape == (64, 64, 3)
    assert np.isfinite(picture).all()


def test_words_it_never_met_are_spelt_not_dropped(tmp_path: Path) -> None:
    tokenizer = parts.make_tokenizer(tmp_path, SHAPES)
    known, unknown = tokenizer.tokenize("a red ball"), tokenizer.tokenize("a Zebra, über 7!")
    assert known == ["a</w>", "red</w>", "ball</w>"]
    assert "".join(unknown).replace("</w>", " ").startswith("a zebra ,")
    assert tokenizer.unk_token not in unknown


def test_training_never_sees_a_held_out_combination_and_judging_asks_for_them() -> None:
    assert not set(seen()) & set(held_out())
    asked = prompts(100, seed=1)
    assert {combination for combination, apart in asked if apart} == set(held_out())


def test_a_checkpoint_is_whole_or_absent(tmp_path: Path) -> None:
    one, other = nn.Linear(3, 2), nn.Linear(3, 2)
    assert load_state(tmp_path / "x.pt", net=other) == 0
    save_state(tmp_path / "x.pt", 7, net=one)
    assert load_state(tmp_path / "x.pt", net=other) == 7
    assert torch.equal(one.weight, other.weight)
    assert [f.name for f in tmp_path.iterdir()] == ["x.pt"]


@pytest.mark.slow
def test_a_training_goes_through_all_its_stages_and_diffusers_draws_with_the_result(tmp_path: Path) -> None:
    world = dataclasses.replace(SHAPES, pictures=64, steps={"vae": 1, "text": 1, "unet": 1})
    device = torch.device("cpu")
    autoencoder = vae.train(world, tmp_path, device)
    tokenizer, encoder = text.train(world, tmp_path, device)
    unet.train(world, tmp_path, device, autoencoder, tokenizer, encoder)
    pair = unet.Pair(parts.make_unet(world), encoder)
    assert unet.averaged(tmp_path, pair) == 1
    parts.export(tmp_path / "base", autoencoder, tmp_path / "tokenizer", pair.text, pair.unet, world)
    pipeline = load(tmp_path / "base", device)
    assert pipeline("a red ball on grass", num_inference_steps=1, output_type="np").images[0].shape == (64, 64, 3)


def test_every_caption_of_every_world_fits_its_encoders_window(tmp_path: Path) -> None:
    for name, world in WORLDS.items():
        tokenizer = parts.make_tokenizer(tmp_path / name, world)
        rng = np.random.default_rng(8)
        for _ in range(50):
            assert parts.tokenise(tokenizer, list(world.draw(rng).captions)).shape[1] == world.max_tokens
        text_, labels = world.describe(rng)
        assert text_ and [0 <= label < len(v) for label, v in zip(labels, world.attributes.values(), strict=True)]


def test_the_end_of_the_training_can_be_chosen_while_it_runs(tmp_path: Path) -> None:
    assert rate_at(5000, 12_000, tmp_path) == 1.0
    (tmp_path / "finish.json").write_text('{"steps": 100}')
    assert rate_at(5000, 12_000, tmp_path) == 1.0
    assert 0.4 < rate_at(5050, 12_000, tmp_path) < 0.6
    assert rate_at(5100, 12_000, tmp_path) == 0.0
