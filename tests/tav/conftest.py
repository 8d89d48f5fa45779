"""A base in SD1.4's layout with random weights, small enough to differentiate in a blink, and a moving clip."""

import json
import string
from pathlib import Path
from typing import Any

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


SD21_SCHEDULER = SCHEDULER | {
    "prediction_type": "v_prediction",
    "timestep_spacing": "trailing",
    "rescale_betas_zero_snr": True,
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
    return _write(folder, unet, _random_vae(), _text_config(), SCHEDULER)


def write_random_sd21_base(folder: Path, seed: int) -> Path:
    """A diffusers folder of SD2.1's: linear projections, heads that differ by block, attention upcast, OpenCLIP's text encoder
    without its last layer, v-prediction at zero terminal SNR."""
    torch.manual_seed(seed)
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 32, 64, 64),
        layers_per_block=1,
        cross_attention_dim=32,
        attention_head_dim=[1, 2, 4, 4],
        norm_num_groups=8,
        use_linear_projection=True,
        upcast_attention=True,
    )
    text = _text_config(num_hidden_layers=23, hidden_act="gelu", projection_dim=16)
    return _write(folder, unet, _random_vae(), text, SD21_SCHEDULER)


def _random_vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(16, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=8,
    )


_LETTERS = string.ascii_lowercase + " ,."
_WORDS = [*_LETTERS, *(f"{c}</w>" for c in _LETTERS), "<|startoftext|>", "<|endoftext|>"]


def _text_config(num_hidden_layers: int = 1, **kind: Any) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(_WORDS),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=num_hidden_layers,
        num_attention_heads=4,
        max_position_embeddings=16,
        bos_token_id=len(_WORDS) - 2,
        eos_token_id=len(_WORDS) - 1,
        pad_token_id=len(_WORDS) - 1,
        **kind,
    )


def _write(
    folder: Path, unet: UNet2DConditionModel, vae: AutoencoderKL, text: CLIPTextConfig, scheduler: dict[str, Any]
) -> Path:
    for name, part in {"unet": unet, "vae": vae, "text_encoder": CLIPTextModel(text)}.items():
        part.save_pretrained(folder / name)
    index = {
        "_class_name": "StableDiffusionPipeline",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", scheduler["_class_name"]],
        "safety_checker": [None, None],
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
    }
    for name, content in {
        "model_index.json": index,
        "tokenizer/vocab.json": {word: i for i, word in enumerate(_WORDS)},
        "tokenizer/tokenizer_config.json": {"tokenizer_class": "CLIPTokenizer", "model_max_length": 16},
        "scheduler/scheduler_config.json": scheduler,
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
def sd21_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_sd21_base(tmp_path_factory.mktemp("sd21"), seed=2)


@pytest.fixture(scope="session")
def sd21(sd21_folder: Path) -> Base:
    return Base.load(str(sd21_folder))


@pytest.fixture(scope="session")
def clip() -> Clip:
    """A bright square that moves right, 5 frames of 16x16."""
    frames = np.full((5, 16, 16, 3), 60, np.uint8)
    for i, frame in enumerate(frames):
        frame[6:11, 2 * i : 2 * i + 5] = (220, 40, 40)
    return Clip(frames, 8.0, "a red square")
