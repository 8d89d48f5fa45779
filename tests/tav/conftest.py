"""A base in SD1.4's layout with random weights, small enough to differentiate in a blink, and a moving clip."""

import json
import string
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from tav import Base, Clip

torch.set_num_threads(1)  # networks this small only lose time to threads

SCHEDULER = {
    "_class_name": "PNDMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "clip_sample": False,
}


def write_random_base(folder: Path, seed: int) -> Path:
    """A diffusers folder of SD1.4's kinds of parts."""
    torch.manual_seed(seed)
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 32, 64, 64),
        layers_per_block=1,
        cross_attention_dim=32,
        attention_head_dim=4,
        norm_num_groups=8,
    )
    vae = AutoencoderKL(
        block_out_channels=(16, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=8,
    )
    letters = string.ascii_lowercase + " ,."
    words = [*letters, *(f"{c}</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(words),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=4,
            max_position_embeddings=16,
            bos_token_id=len(words) - 2,
            eos_token_id=len(words) - 1,
            pad_token_id=len(words) - 1,
        )
    )
    for name, part in {"unet": unet, "vae": vae, "text_encoder": text}.items():
        part.save_pretrained(folder / name)
    for name, content in {
        "tokenizer/vocab.json": {word: i for i, word in enumerate(words)},
        "tokenizer/tokenizer_config.json": {"tokenizer_class": "CLIPTokenizer", "model_max_length": 16},
        "scheduler/scheduler_config.json": SCHEDULER,
    }.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    (folder / "tokenizer" / "merges.txt").write_text("#version: 0.2\n")
    return folder


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_base(tmp_path_factory.mktemp("base"), seed=0)


@pytest.fixture(scope="session")
def base(base_folder: Path) -> Base:
    return Base.load(str(base_folder))


@pytest.fixture(scope="session")
def other_base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return Base.load(str(write_random_base(tmp_path_factory.mktemp("other"), seed=1)))


@pytest.fixture(scope="session")
def clip() -> Clip:
    """A bright square that moves right, 5 frames of 16x16."""
    frames = np.full((5, 16, 16, 3), 60, np.uint8)
    for i, frame in enumerate(frames):
        frame[6:11, 2 * i : 2 * i + 5] = (220, 40, 40)
    return Clip(frames, 8.0, "a red square")
