"""Small CLIP and DINOv2 models with random weights, saved as the hub has them, and clips that move in known ways."""

import json
import string
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BitImageProcessorPil, CLIPConfig, CLIPImageProcessorPil, CLIPModel, Dinov2Config, Dinov2Model

from tav.video import Frames

torch.set_num_threads(1)


def write_clip_model(folder: Path, seed: int, scale: float = 4.6052) -> Path:
    """A CLIP model, its tokenizer (letters) and its image processor."""
    letters = string.ascii_lowercase + " ,."
    words = [*letters, *(f"{c}</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    end = {"bos_token_id": len(words) - 2, "eos_token_id": len(words) - 1, "pad_token_id": len(words) - 1}
    torch.manual_seed(seed)
    config = CLIPConfig(
        text_config=sizes | end | {"vocab_size": len(words), "max_position_embeddings": 32},
        vision_config=sizes | {"image_size": 32, "patch_size": 8},
        projection_dim=24,
        logit_scale_init_value=scale,
    )
    CLIPModel(config).save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer", "model_max_length": 32}))
    return folder


@pytest.fixture(scope="session")
def clip_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip_model(tmp_path_factory.mktemp("clip"), seed=0)


@pytest.fixture(scope="session")
def pick_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip_model(tmp_path_factory.mktemp("pick"), seed=1, scale=3.0)


@pytest.fixture(scope="session")
def structure_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dino")
    torch.manual_seed(2)
    config = Dinov2Config(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, image_size=28, patch_size=7)
    Dinov2Model(config).save_pretrained(folder)
    BitImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}).save_pretrained(folder)
    return folder


def texture(seed: int = 0, side: int = 200) -> Frames:
    """A smooth random colour picture `[side, side, 3]`, the same at opposite edges."""
    rng = np.random.default_rng(seed)
    wave = np.fft.fftfreq(side) * side
    low = np.exp(-(wave[:, None] ** 2 + wave[None] ** 2) / (2 * 12**2))[..., None]
    smooth = np.fft.ifft2(np.fft.fft2(rng.normal(size=(side, side, 3)), axes=(0, 1)) * low, axes=(0, 1)).real
    smooth -= smooth.min()
    return (smooth * (255 / smooth.max())).astype(np.uint8)


def pan(picture: Frames, right: int, down: int, num_frames: int = 4, side: int = 128) -> Frames:
    """A window on a picture whose content moves by so many pixels a frame, `[F, side, side, 3]`."""
    return np.stack([np.roll(picture, (i * down, i * right), (0, 1))[:side, :side] for i in range(num_frames)])


@pytest.fixture(scope="session")
def text_to_video_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CogVideoX of random weights, as the hub has it: 9 frames of 96x64."""
    from diffusers import AutoencoderKLCogVideoX, CogVideoXDDIMScheduler, CogVideoXPipeline, CogVideoXTransformer3DModel
    from transformers import T5Config, T5EncoderModel, T5Tokenizer

    folder = tmp_path_factory.mktemp("cogvideox")
    words = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -1.0), *((letter, -2.0) for letter in string.ascii_lowercase)]
    tokenizer = T5Tokenizer(vocab=words, extra_ids=0)
    torch.manual_seed(3)
    small = T5Config(vocab_size=len(tokenizer), d_model=32, d_kv=8, d_ff=37, num_layers=1, num_heads=4)
    CogVideoXPipeline(
        tokenizer=tokenizer,
        text_encoder=T5EncoderModel(small),
        vae=AutoencoderKLCogVideoX(
            down_block_types=("CogVideoXDownBlock3D",) * 4,
            up_block_types=("CogVideoXUpBlock3D",) * 4,
            block_out_channels=(8, 8, 8, 8),
            latent_channels=4,
            layers_per_block=1,
            norm_num_groups=2,
        ),
        transformer=CogVideoXTransformer3DModel(
            num_attention_heads=4,
            attention_head_dim=8,
            in_channels=4,
            out_channels=4,
            time_embed_dim=2,
            text_embed_dim=32,
            num_layers=1,
            sample_width=12,
            sample_height=8,
            sample_frames=9,
        ),
        scheduler=CogVideoXDDIMScheduler(),
    ).save_pretrained(folder)
    return folder
