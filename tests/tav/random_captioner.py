"""Captioners with random weights: real models of transformers, small enough to speak in a blink."""

from pathlib import Path

import torch
from transformers import (
    BertTokenizer,
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    Blip2QFormerConfig,
    Blip2VisionConfig,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessor,
    BlipProcessor,
    CLIPImageProcessor,
    GitConfig,
    GitForCausalLM,
    GitProcessor,
    OPTConfig,
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
        model.text_decoder.cls.predictions.bias.data[
            : len(SPECIAL)
        ] = -1000.0  # nothing but words, and no end before the longest
    elif kind == "blip2":
        model, processor = _blip2(tokenizer)
    else:
        model = GitForCausalLM(GitConfig(vision_config=vision, **text, bos_token_id=2, eos_token_id=3, initializer_range=0.5))
        processor = GitProcessor(
            CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}), tokenizer
        )
        model.output.bias.data[: len(SPECIAL)] = -1000.0
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _blip2(tokenizer: BertTokenizer) -> tuple[Blip2ForConditionalGeneration, Blip2Processor]:
    """BLIP-2 as the public one is made: ViT, Q-Former and OPT, with an image token that stands for each query."""
    processor = Blip2Processor(BlipImageProcessor(size={"height": 32, "width": 32}), tokenizer, num_query_tokens=4)
    vocabulary = len(tokenizer)  # the processor has added its image token
    config = Blip2Config(
        vision_config=Blip2VisionConfig(**_SMALL, image_size=32, patch_size=16, initializer_range=0.5).to_dict(),
        qformer_config=Blip2QFormerConfig(
            **_SMALL, encoder_hidden_size=32, vocab_size=vocabulary, initializer_range=0.5
        ).to_dict(),
        text_config=OPTConfig(
            vocab_size=vocabulary,
            hidden_size=32,
            ffn_dim=64,
            num_hidden_layers=1,
            num_attention_heads=2,
            word_embed_proj_dim=32,
            max_position_embeddings=64,
            bos_token_id=2,
            eos_token_id=3,
            pad_token_id=0,
            init_std=0.5,
            tie_word_embeddings=False,
        ).to_dict(),
        num_query_tokens=4,
        image_token_index=vocabulary - 1,
    )
    model = Blip2ForConditionalGeneration(config)
    model.query_tokens.data.normal_()
    model.generation_config.suppress_tokens = [*range(len(SPECIAL)), vocabulary - 1]  # OPT's last layer has no bias
    return model, processor
