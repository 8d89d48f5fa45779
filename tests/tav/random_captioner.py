"""Captioners with random weights: real models of transformers, small enough to speak in a blink."""

from pathlib import Path

import torch
from transformers import (
    BertTokenizer,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessor,
    BlipProcessor,
    CLIPImageProcessor,
    GitConfig,
    GitForCausalLM,
    GitProcessor,
)

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = list("abcdefghijklmnopqrstuvwxyz")

_SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}


def write_random_captioner(folder: Path, kind: str = "blip", seed: int = 0) -> Path:
    """A folder that `tav.caption.Captioner` takes; it says some of `WORDS`, which ones depends on the picture."""
    torch.manual_seed(seed)
    vision = {**_SMALL, "image_size": 32, "patch_size": 16, "initializer_range": 0.5}
    text = {**_SMALL, "vocab_size": len(SPECIAL) + len(WORDS), "max_position_embeddings": 64, "pad_token_id": 0}
    tokenizer = BertTokenizer(vocab={word: i for i, word in enumerate(SPECIAL + WORDS)})
    if kind == "blip":
        ends = {"bos_token_id": 2, "eos_token_id": 3, "sep_token_id": 3}
        text = {**text, **ends, "encoder_hidden_size": 32, "initializer_range": 0.5}
        model = BlipForConditionalGeneration(BlipConfig(text_config=text, vision_config=vision))
        processor = BlipProcessor(BlipImageProcessor(size={"height": 32, "width": 32}), tokenizer)
    else:
        model = GitForCausalLM(GitConfig(vision_config=vision, **text, bos_token_id=2, eos_token_id=3, initializer_range=0.5))
        processor = GitProcessor(
            CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}), tokenizer
        )
    head = model.text_decoder.cls.predictions if kind == "blip" else model.output
    head.bias.data[: len(SPECIAL)] = -1000.0  # nothing but words, and no end before the longest
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
