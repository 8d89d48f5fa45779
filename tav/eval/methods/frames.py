"""Per-frame baselines: a clip edited as so many pictures, by the base's own 2-D network."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

import torch
from diffusers import DDIMScheduler, StableDiffusionImg2ImgPipeline
from torch import Tensor

from tav.base import Base
from tav.ddim import DDIM
from tav.errors import InvalidConfig
from tav.eval.methods.workbench import Workbench
from tav.eval.suite import Case, SuiteClip
from tav.injection import first_row_everywhere
from tav.video import Frames, Video

_FRAMES_AT_ONCE = 8


@dataclass(frozen=True)
class ImageToImage:
    """Each frame is noised up to `strength` and denoised with the edited prompt (SDEdit), by diffusers' pipeline."""

    name: str
    strength: float = 0.8
    """Share of the noise schedule; diffusers' default."""

    @property
    def about(self) -> str:
        """One sentence for the report."""
        return f"Each frame by diffusers' img2img (SDEdit) at strength {self.strength:g}, the same noise for every frame."

    def sample(self, bench: Workbench, clip: SuiteClip, case: Case) -> Video:
        """See `Method.sample`."""
        source = bench.clip(clip)
        return Video(image_to_image(bench.base, source.frames, case.prompt, self.strength, case.seed), source.fps)


def image_to_image(base: Base, frames: Frames, prompt: str, strength: float, seed: int) -> Frames:
    """Edit every frame alone, with the base's recommended steps and guidance; all frames get the same noise."""
    config = base.sample_config()
    pipeline = StableDiffusionImg2ImgPipeline(
        vae=base.vae,
        text_encoder=base.text_encoder,
        tokenizer=base.tokenizer,
        unet=base.unet,
        scheduler=DDIMScheduler.from_config(base.scheduler_config),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    # In the base's own types: the pipeline would give a VAE that stays in fp32 what the network computes in.
    negative, positive = base.encode_text([config.negative_prompt, prompt]).split(1)
    mean, std = (moment[0].transpose(0, 1) for moment in base.encode_frames(frames))  # [F, 4, h, w]
    edited = []
    for of_mean, of_std in zip(mean.split(_FRAMES_AT_ONCE), std.split(_FRAMES_AT_ONCE), strict=True):
        generators = [torch.Generator().manual_seed(seed) for _ in of_mean]
        drawn = torch.stack([torch.randn(of_mean.shape[1:], generator=generator) for generator in generators])
        out = pipeline(
            prompt_embeds=positive.expand(len(of_mean), -1, -1),
            negative_prompt_embeds=negative.expand(len(of_mean), -1, -1),
            image=(of_mean + of_std * drawn.to(of_std)).to(base.dtype),
            strength=strength,
            num_inference_steps=config.num_inference_steps,
            guidance_scale=config.guidance_scale,
            generator=generators,
            output_type="latent",
        )
        edited.append(out.images)
    return base.decode_latents(torch.cat(edited).transpose(0, 1).unsqueeze(0))


@dataclass(frozen=True)
class PlugAndPlay:
    """Each frame is inverted with the base, and the edit takes over features of its reconstruction (Tumanyan et al. 2023).

    Taken: the output of the second ResNet block of the decoder's second level for the first `features` of the steps, and
    queries and keys of every self-attention from there on for the first `attention` of them. On Stable Diffusion 1.4 these
    are the paper's "layer 4" and "layers 4–11"; on a smaller base, the same places.
    """

    name: str
    features: float = 0.8
    attention: float = 0.5

    @property
    def about(self) -> str:
        """One sentence for the report."""
        return (
            "Each frame by plug-and-play (Tumanyan et al. 2023): decoder features for the first "
            f"{self.features:.0%} of steps, self-attention's queries and keys for the first {self.attention:.0%}."
        )

    def sample(self, bench: Workbench, clip: SuiteClip, case: Case) -> Video:
        """See `Method.sample`. Nothing is random: every seed gives the same video."""
        source = bench.clip(clip)
        return Video(plug_and_play(bench.base, source.frames, case.prompt, self.features, self.attention), source.fps)


@torch.inference_mode()
def plug_and_play(base: Base, frames: Frames, prompt: str, features: float, attention: float) -> Frames:
    """Edit every frame alone, with the base's recommended steps and guidance.

    Args:
        base: its 2-D network is used as it is.
        frames: uint8 `[F, H, W, 3]`.
        prompt: of the edit.
        features: share of steps, 0–1, that take the ResNet block's output.
        attention: share of steps, 0–1, that take self-attention's queries and keys.
    """
    config = base.sample_config()
    ddim = DDIM(base.scheduler_config, config.num_inference_steps)
    block, projections = injected_layers(base)
    text = base.encode_text(["", config.negative_prompt, prompt])  # rows: the source, then guidance's two
    clean = base.encode_frames(frames)[0].float()[0].transpose(0, 1)  # [F, 4, h, w]
    edited = []
    for source in clean.split(_FRAMES_AT_ONCE):
        for t in reversed(ddim.timesteps):
            source = ddim.up(source, _predict(base, source, t, text[:1]), t)
        edit = source
        for i, t in enumerate(ddim.timesteps):
            share = (i + 0.5) / len(ddim.timesteps)
            taken = [*([block] if share < features else []), *(projections if share < attention else [])]
            with first_row_everywhere(base.unet, taken, rows=3) if taken else nullcontext():
                prediction = _predict(base, torch.cat([source, edit, edit]), t, text)
            of_source, unconditional, conditional = prediction.chunk(3)
            guided = unconditional + config.guidance_scale * (conditional - unconditional)
            source, edit = ddim.down(source, of_source, t), ddim.down(edit, guided, t)
        edited.append(edit)
    return base.decode_latents(torch.cat(edited).transpose(0, 1).unsqueeze(0))


def injected_layers(base: Base) -> tuple[str, list[str]]:
    """Name the ResNet block and the self-attention projections that plug-and-play takes over.

    Raises:
        InvalidConfig: the base's decoder has no attention where they should be.
    """
    names = [name for name, _ in base.unet.named_modules()]
    block = "up_blocks.1.resnets.1"
    projections = [
        name
        for name in names
        if name.startswith("up_blocks.") and name.endswith((".attn1.to_q", ".attn1.to_k")) and _place(name) >= (1, 1)
    ]
    if block not in names or not projections:
        raise InvalidConfig("plug-and-play needs a Stable Diffusion decoder: this base's has no attention in its second level")
    return block, projections


def _place(name: str) -> tuple[int, int]:
    level, layer = name.split(".")[1:4:2]
    return int(level), int(layer)


def _predict(base: Base, rows: Tensor, t: int, text: Tensor) -> Tensor:
    """Return the base's prediction for `[R·F, 4, h, w]`, frames of one row adjacent, with a prompt `[R, L, D]` a row."""
    per_frame = text.repeat_interleave(len(rows) // len(text), dim=0)
    prediction: Tensor = base.unet(rows.to(base.dtype), t, per_frame, return_dict=False)[0]
    return prediction.float()
