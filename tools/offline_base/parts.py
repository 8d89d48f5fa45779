"""The base's parts, in exactly Stable Diffusion 1.4's kinds and folder layout, only smaller; their making and export."""

import json
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from tav.bases import OFFLINE
from tools.offline_base.worlds import World

BOS, EOS = "<|startoftext|>", "<|endoftext|>"

RECOMMENDED = OFFLINE / "tav.json"
"""What a base of this size recommends where the defaults of SD1.4 do not fit; chosen by the suite `offline-development`."""

SCHEDULER = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon",
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
    "clip_sample": False,
}
"""SD1.4's scheduler, value for value."""


SPECIAL = {"bos_token": BOS, "eos_token": EOS, "pad_token": EOS, "unk_token": EOS}
TOKENIZER = {
    "tokenizer_class": "CLIPTokenizer",
    "do_lower_case": True,
    "add_prefix_space": False,
    "errors": "replace",
    **SPECIAL,
}


def make_vae(world: World) -> AutoencoderKL:
    """Pictures to latents of 4 channels. The factor that gives latents unit deviation is set after training."""
    levels = len(world.vae_channels)
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        sample_size=world.side,
        block_out_channels=world.vae_channels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        layers_per_block=1,
        norm_num_groups=8,
        scaling_factor=1.0,
    )


def make_unet(world: World) -> UNet2DConditionModel:
    """SD1.4's blocks over the world's latents and text, and SD1.4's `attention_head_dim` that counts heads."""
    return UNet2DConditionModel(
        sample_size=world.latent_side,
        in_channels=4,
        out_channels=4,
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        mid_block_type="UNetMidBlock2DCrossAttn",
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        block_out_channels=world.unet_channels,
        layers_per_block=1,
        cross_attention_dim=world.text_width,
        attention_head_dim=world.heads,
        norm_num_groups=16,
        downsample_padding=1,
        center_input_sample=False,
        flip_sin_to_cos=True,
        freq_shift=0,
        act_fn="silu",
        mid_block_scale_factor=1,
        norm_eps=1e-5,
    )


def make_tokenizer(folder: Path, world: World) -> CLIPTokenizer:
    """A CLIP tokenizer with a byte-level BPE of its own, learnt from every caption; words unknown to it are spelt."""
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token=EOS))
    bpe.normalizer = normalizers.Lowercase()
    bpe.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=world.vocabulary, initial_alphabet=letters, end_of_word_suffix="</w>", show_progress=False
    )
    bpe.train_from_iterator(world.texts(), trainer)
    merges = json.loads(bpe.to_str())["model"]["merges"]
    vocab = {token: i for i, token in enumerate(letters + [f"{x}</w>" for x in letters])}
    for left, right in merges:
        vocab.setdefault(left + right, len(vocab))
    for special in (BOS, EOS):
        vocab[special] = len(vocab)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(m) for m in merges) + "\n")
    return CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), unk_token=EOS, pad_token=EOS, model_max_length=world.max_tokens
    )


def make_text_encoder(tokenizer: CLIPTokenizer, world: World) -> CLIPTextModel:
    """A CLIP text encoder."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=world.text_width,
        intermediate_size=4 * world.text_width,
        projection_dim=world.text_width,
        num_hidden_layers=world.text_layers,
        num_attention_heads=4,
        max_position_embeddings=world.max_tokens,
        hidden_act="quick_gelu",
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


def tokenise(tokenizer: CLIPTokenizer, texts: list[str]) -> torch.Tensor:
    """Token ids `[B, L]`, padded as the pipeline pads them.

    Raises:
        ValueError: a text is longer than the encoder's window.
    """
    length = tokenizer.model_max_length
    ids = tokenizer(texts, padding="max_length", return_tensors="pt").input_ids
    if ids.shape[1] > length:
        raise ValueError(f"{max(texts, key=len)!r} has more than {length} tokens")
    assert isinstance(ids, torch.Tensor)
    return ids


def export(
    folder: Path, vae: AutoencoderKL, tokenizer: Path, text: CLIPTextModel, unet: UNet2DConditionModel, world: World
) -> None:
    """Write the whole base as fp16 safetensors, in the layout `StableDiffusionPipeline.from_pretrained` reads.

    Args:
        folder: where to; made if missing.
        vae: the autoencoder, with its scaling factor set.
        tokenizer: the folder `make_tokenizer` wrote.
        text: the text encoder.
        unet: the denoiser.
        world: what they were trained on.
    """
    half = torch.float16
    for name, part in (("vae", vae), ("text_encoder", text), ("unet", unet)):
        whole = next(part.parameters()).dtype
        part.to(half).save_pretrained(folder / name, safe_serialization=True)
        part.to(whole)
    # In fp16 to be small; who loads the folder without a dtype computes in fp32, which diffusers takes for the other two.
    config = folder / "text_encoder" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"dtype": "float32"}, indent=2, sort_keys=True) + "\n")
    (folder / "tokenizer").mkdir(exist_ok=True)
    for name in ("vocab.json", "merges.txt"):
        shutil.copyfile(tokenizer / name, folder / "tokenizer" / name)
    for name, content in (
        ("tokenizer_config.json", TOKENIZER | {"model_max_length": world.max_tokens}),
        ("special_tokens_map.json", SPECIAL),
    ):
        (folder / "tokenizer" / name).write_text(json.dumps(content, indent=2) + "\n")
    scheduler = PNDMScheduler.from_config(SCHEDULER)
    scheduler.save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.2.2",
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "PNDMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    (folder / "tav.json").write_text(RECOMMENDED.read_text())
