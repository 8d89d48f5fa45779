"""Models that score: CLIP-like (image and text in one space), and feature extractors for structure.

Pictures are prepared by the model's own Pillow processor, never torchvision's, so that a score is the same with and without it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from huggingface_hub.errors import HFValidationError
from torch import Tensor
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer, CLIPModel

from tav.errors import ScoreModelUnavailable
from tav.video import Frames

_FRAMES_AT_ONCE = 16


class ImageText:
    """A CLIP model: CLIP itself, or one tuned to predict preference (PickScore).

    Args:
        name: a hub id or a folder with the model, its image processor and its tokenizer.
        device: where it computes.
        processor: where image processor and tokenizer are, if not beside the model.

    Raises:
        ScoreModelUnavailable: no such model.
    """

    def __init__(self, name: str, device: str = "cpu", processor: str | None = None) -> None:
        self.name, self.device = name, torch.device(device)
        self.model = _network(name).to(self.device)
        if not isinstance(self.model, CLIPModel):
            raise ScoreModelUnavailable(
                f"{name!r} is a {type(self.model).__name__}: give a CLIP model to compare pictures and text"
            )
        self.pictures = _load(AutoImageProcessor, processor or name, backend="pil")
        self.tokenizer = _load(AutoTokenizer, processor or name)
        self.scale = float(self.model.logit_scale.exp())
        """What the model multiplies cosines by, learnt."""

    @torch.inference_mode()
    def images(self, frames: Frames) -> Tensor:
        """Embed frames uint8 `[F, H, W, 3]` as unit vectors `[F, D]`, fp32 on the CPU."""
        parts = [
            self.model.get_image_features(pixel_values=pixels).pooler_output
            for pixels in _pixels(self.pictures, frames, self.device)
        ]
        return _unit(torch.cat(parts))

    @torch.inference_mode()
    def text(self, prompt: str) -> Tensor:
        """Embed a prompt as a unit vector `[D]`, fp32 on the CPU. What is beyond the model's length is cut off."""
        length = self.model.config.text_config.max_position_embeddings
        tokens = self.tokenizer([prompt], truncation=True, max_length=length, return_tensors="pt").to(self.device)
        return _unit(self.model.get_text_features(**tokens).pooler_output)[0]


class Structure:
    """Self-similarity of a vision transformer's patches: how the parts of a picture relate, whatever their look.

    The idea is Tumanyan et al.'s (2022); the features are the last layer's outputs, which every transformers ViT has.

    Args:
        name: a hub id or a folder: DINOv2, DINO, any ViT.
        device: where it computes.

    Raises:
        ScoreModelUnavailable: no such model, or not a vision transformer.
    """

    def __init__(self, name: str, device: str = "cpu") -> None:
        self.name, self.device = name, torch.device(device)
        self.model = _network(name).to(self.device)
        if isinstance(self.model, CLIPModel) or not hasattr(self.model.config, "patch_size"):
            raise ScoreModelUnavailable(
                f"{name!r} is a {type(self.model).__name__}: give a vision transformer such as facebook/dinov2-base"
            )
        self.pictures = _load(AutoImageProcessor, name, backend="pil")
        self.skipped = 1 + int(getattr(self.model.config, "num_register_tokens", 0))  # class and register tokens

    @torch.inference_mode()
    def similarities(self, frames: Frames) -> Tensor:
        """Return cosines between patches `[F, N, N]` of frames uint8 `[F, H, W, 3]`, fp32 on the CPU."""
        parts = []
        for pixels in _pixels(self.pictures, frames, self.device):
            patches = _unit(self.model(pixel_values=pixels).last_hidden_state[:, self.skipped :])
            parts.append(patches @ patches.transpose(1, 2))
        return torch.cat(parts)


def frame_consistency(images: Tensor) -> float:
    """Mean cosine over all pairs of different frames. Unit vectors `[F, D]`, F ≥ 2."""
    cosines = images @ images.T
    count = len(images)
    return float((cosines.sum() - cosines.diagonal().sum()) / (count * (count - 1)))


def faithfulness(images: Tensor, text: Tensor, scale: float = 100.0) -> float:
    """Mean over frames of `scale` × cosine(frame, prompt). Unit vectors `[F, D]` and `[D]`."""
    return float(scale * (images @ text).mean())


def structure_distance(ours: Tensor, theirs: Tensor) -> float:
    """Mean squared difference of two videos' self-similarities `[F, N, N]`."""
    return float((ours - theirs).square().mean())


def _load(kind: Any, name: str, **options: Any) -> Any:
    try:
        return kind.from_pretrained(name, **options)
    except (OSError, ValueError, KeyError, HFValidationError) as error:
        raise ScoreModelUnavailable(
            f"no model {name!r} to score with: give a hub id such as openai/clip-vit-large-patch14, or a folder that holds the "
            "model, its preprocessor_config.json and, for CLIP, its tokenizer"
        ) from error


def _network(name: str) -> Any:
    """Load a model in fp32 with all its weights: what a file lacks, transformers would draw at random."""
    model, info = _load(AutoModel, name, dtype=torch.float32, output_loading_info=True)
    missing = sorted(key for key in info["missing_keys"] if "pooler" not in key)  # ViT's unused pooler is often left out
    if missing:
        raise ScoreModelUnavailable(f"the weights of {name!r} lack {missing[0]} and {len(missing) - 1} more: download it again")
    return model.eval().requires_grad_(False)


def _pixels(processor: Any, frames: Frames, device: torch.device) -> Iterator[Tensor]:
    """Yield the model's input, `[≤16, 3, h, w]` at a time."""
    for i in range(0, len(frames), _FRAMES_AT_ONCE):
        chunk = list(frames[i : i + _FRAMES_AT_ONCE])
        yield processor(chunk, return_tensors="pt", input_data_format="channels_last").pixel_values.to(device)


def _unit(vectors: Tensor) -> Tensor:
    return torch.nn.functional.normalize(vectors.float(), dim=-1).cpu()
