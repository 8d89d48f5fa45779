"""Captions for clips that came without one: any captioner of transformers looks at the middle frame."""

from __future__ import annotations

from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from tav.errors import CaptionerUnavailable, InvalidClip
from tav.media.decoder import probe_isolated, read_frames_isolated
from tav.probe import ClipLimits
from tav.video import Frames

DEFAULT = "Salesforce/blip2-opt-2.7b"
"""BLIP-2, as the public Tune-A-Video demos caption with."""

_FILES = ["*.json", "*.txt", "*.model", "*.jinja", "*.safetensors"]
_LONGEST = 40  # tokens
_QUESTION = "Describe this picture in one short sentence."


class Captioner:
    """An image captioner: BLIP, BLIP-2, GIT, or a model that one chats with about pictures. Its weights must be safetensors.

    Args:
        name: a hub id or a folder.
        device: where it computes; in half precision on a GPU.

    Raises:
        CaptionerUnavailable: no such model, or not one that makes text of pictures.
    """

    def __init__(self, name: str = DEFAULT, device: str | torch.device = "cpu") -> None:
        self.name, self.device = name, torch.device(device)
        dtype = torch.float32 if self.device.type == "cpu" else torch.float16
        try:
            folder = name if Path(name).is_dir() else snapshot_download(name, allow_patterns=_FILES)
            self.processor = AutoProcessor.from_pretrained(folder)
            model, info = AutoModelForImageTextToText.from_pretrained(
                folder, dtype=dtype, use_safetensors=True, output_loading_info=True
            )
        except (OSError, ValueError, HfHubHTTPError, HFValidationError) as error:
            reason = str(error).strip().splitlines()[0]
            raise CaptionerUnavailable(
                f"the captioner {name!r} cannot be loaded ({reason}): give a folder, or a hub id such as {DEFAULT}"
            ) from error
        if missing := sorted(info["missing_keys"]):  # transformers has drawn them at random
            raise CaptionerUnavailable(
                f"the weights of the captioner {name!r} lack {missing[0]} and {len(missing) - 1} more: download it again"
            )
        self.model = model.to(self.device).eval()

    @torch.inference_mode()
    def caption(self, picture: Frames) -> str:
        """Say what a picture, uint8 `[H, W, 3]`, shows. The same picture always gets the same words.

        Raises:
            InvalidClip: the captioner has no word for it.
        """
        image = Image.fromarray(picture)
        if getattr(self.processor, "chat_template", None):
            content = [{"type": "image", "image": image}, {"type": "text", "text": _QUESTION}]
            inputs = self.processor.apply_chat_template(
                [{"role": "user", "content": content}],
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
            )
        else:
            inputs = self.processor(images=image, return_tensors="pt")
        prompt_tokens = inputs["input_ids"].shape[1] if "input_ids" in inputs else 0
        inputs = inputs.to(self.device, self.model.dtype)
        tokens = self.model.generate(**inputs, max_new_tokens=_LONGEST, do_sample=False)
        (text,) = self.processor.batch_decode(tokens[:, prompt_tokens:], skip_special_tokens=True)
        if not (words := text.split()):
            raise InvalidClip(f"the captioner {self.name!r} found no words for the clip: give it a caption")
        return " ".join(words)

    def caption_clip(self, path: str | Path, limits: ClipLimits | None = None) -> str:
        """Say what the middle frame of a video file shows; it is decoded in a process of its own.

        Raises:
            InvalidClip: unreadable, beyond `limits`, or the captioner has no word for it.
        """
        clip = probe_isolated(path, limits)
        size, middle = (clip.width, clip.height), clip.num_frames // 2
        frames, _ = read_frames_isolated(path, 1, size, middle, 1, limits)
        return self.caption(frames[0])
