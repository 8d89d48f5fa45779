"""The base's parts, in exactly Stable Diffusion 1.4's kinds and folder layout, only smaller; their making and export."""

import json
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from tav.bases import OFFLINE
from tav.eval.offline.world import COLOURS, GROUNDS, PARTIAL, PHRASES, SHAPES, caption

MAX_TOKENS = 24
TEXT_WIDTH = 96
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
    "model_max_length": MAX_TOKENS,
    "do_lower_case": True,
    "add_prefix_space": False,
    "errors": "replace",
    **SPECIAL,
}


def make_vae() -> AutoencoderKL:
    """64×64×3 → 16×16×4, 0.65M parameters. The factor that gives latents unit deviation is set after training."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        sample_size=64,
        block_out_channels=(16, 32, 64),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        norm_num_groups=8,
        scaling_factor=1.0,
    )


def make_unet() -> UNet2DConditionModel:
    """16×16×4 latents, text of width 96; SD1.4's blocks, and its `attention_head_dim` that counts heads."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        mid_block_type="UNetMidBlock2DCrossAttn",
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        block_out_channels=(32, 64, 128, 128),
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=8,
        norm_num_groups=16,
        downsample_padding=1,
        center_input_sample=False,
        flip_sin_to_cos=True,
        freq_shift=0,
        act_fn="silu",
        mid_block_scale_factor=1,
        norm_eps=1e-5,
    )


def make_tokenizer(folder: Path) -> CLIPTokenizer:
    """A CLIP tokenizer with a byte-level BPE of its own, learnt from every caption; words unknown to it are spelt."""
    words = sorted(set(PHRASES + PARTIAL))
    texts = [caption(c, s, g, p) for p in words for c in COLOURS for s in SHAPES for g in GROUNDS]
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token=EOS))
    bpe.normalizer = normalizers.Lowercase()
    bpe.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=2 * 256 + 160, initial_alphabet=letters, end_of_word_suffix="</w>", show_progress=False
    )
    bpe.train_from_iterator(texts, trainer)
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
        str(folder / "vocab.json"), str(folder / "merges.txt"), unk_token=EOS, pad_token=EOS, model_max_length=MAX_TOKENS
    )


def make_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """A CLIP text encoder of 2 layers, width 96."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_WIDTH,
        intermediate_size=4 * TEXT_WIDTH,
        projection_dim=TEXT_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=MAX_TOKENS,
        hidden_act="quick_gelu",
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


def tokenise(tokenizer: CLIPTokenizer, texts: list[str]) -> torch.Tensor:
    """Token ids `[B, 24]`, padded as the pipeline pads them."""
    ids = tokenizer(texts, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt").input_ids
    assert isinstance(ids, torch.Tensor)
    return ids


def export(folder: Path, vae: AutoencoderKL, tokenizer: Path, text: CLIPTextModel, unet: UNet2DConditionModel) -> None:
    """Write the whole base as fp16 safetensors, in the layout `StableDiffusionPipeline.from_pretrained` reads.

    Args:
        folder: where to; made if missing.
        vae: the autoencoder, with its scaling factor set.
        tokenizer: the folder `make_tokenizer` wrote.
        text: the text encoder.
        unet: the denoiser.
    """
    half = torch.float16
    for name, part in (("vae", vae), ("text_encoder", text), ("unet", unet)):
        whole = next(part.parameters()).dtype
        part.to(half).save_pretrained(folder / name, safe_serialization=True)
        part.to(whole)
    (folder / "tokenizer").mkdir(exist_ok=True)
    for name in ("vocab.json", "merges.txt"):
        shutil.copyfile(tokenizer / name, folder / "tokenizer" / name)
    for name, content in (("tokenizer_config.json", TOKENIZER), ("special_tokens_map.json", SPECIAL)):
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
