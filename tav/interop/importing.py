"""A public Tune-A-Video checkpoint as a delta and inverted latents on a base of ours.

What the checkpoint and the base both hold is compared: the delta is only worth something on the base it was tuned on.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from pydantic import ValidationError
from torch import Tensor

from tav.base import Base
from tav.bases.names import is_same_base
from tav.clip import Clip
from tav.config import AttentionMode, GroupNormMode, InvertConfig, TuneConfig
from tav.delta import Delta, DeltaMeta, Origin, read_tensors
from tav.errors import InvalidCheckpoint, InvalidConfig
from tav.inflation import is_tuned
from tav.interop.compare import compare, read_text_encoder, read_vae
from tav.interop.reference import PARTS, PublicCheckpoint, Record, read_latents, to_2d
from tav.inversion import invert
from tav.latents import Latents, LatentsMeta

CLIP = "clip"
"""The component of an exported diffusers pipeline that holds delta and latents, in one file as the hub's downloads name it."""
CLIP_WEIGHTS = f"{CLIP}/diffusion_pytorch_model.safetensors"
LATENTS = "latents"


@dataclass(frozen=True)
class Facts:
    """What is known of the clip from elsewhere; None leaves it to the checkpoint."""

    caption: str | None = None
    num_frames: int | None = None
    size: tuple[int, int] | None = None
    """`(width, height)`."""
    fps: float | None = None
    inversion_steps: int | None = None


@dataclass(frozen=True)
class Imported:
    """What an import gave."""

    delta: Delta
    latents: Latents | None
    deviation: dict[str, float]
    """By part of the base: the largest difference of a frozen tensor from the base's. Zero but for rounding."""


def import_checkpoint(
    folder: Path,
    base: Base,
    *,
    facts: Facts = Facts(),
    latents: Path | None = None,
    video: Path | None = None,
    attention: AttentionMode | None = None,
    group_norm: GroupNormMode | None = None,
) -> Imported:
    """Read a checkpoint of the public implementation, or a pipeline that `export_diffusers` wrote.

    Args:
        folder: a pipeline's folder, or its UNet's.
        base: what the clip was tuned on.
        facts: of the clip, before what the folder says.
        latents: a `ddim_latent-*.pt`; left out, the folder's own of the most tuning steps, if it has any.
        video: the clip's file, to invert it here instead; its frames are chosen as `config.yaml` says, or spread evenly.
        attention: ST-Attn mode; left out, what the UNet's config says.
        group_norm: left out, the public implementation's: over the whole video.

    Raises:
        BaseMismatch: it was tuned on another base.
        InvalidCheckpoint: it cannot be read, or tuned more than a delta holds.
        InvalidConfig: something about the clip is known neither from `facts` nor from the folder.
    """
    if (folder / CLIP_WEIGHTS).is_file():
        if facts != Facts() or latents or video or attention or group_norm:
            raise InvalidConfig(f"{folder} says all about its clip itself: leave out the options that say something about it")
        return _import_pipeline(folder / CLIP_WEIGHTS, base)
    checkpoint = PublicCheckpoint.read(folder)
    deviation = compare(checkpoint, base)
    record = checkpoint.record
    path = None if video else latents or checkpoint.latents_file()
    noise = None if path is None else read_latents(path)
    if video:
        clip = _read_clip(video, checkpoint, _clip_facts(checkpoint, facts, noise, base))
        facts = replace(facts, fps=clip.fps)
    if record is not None and is_same_base(record.delta.origin.fingerprint, base.fingerprint) and facts == Facts():
        origin = record.delta.origin
    else:
        origin = _origin(base, _clip_facts(checkpoint, facts, noise, base))
    if noise is not None:
        _check_latents(noise, origin, base)
    meta = DeltaMeta(
        origin=origin,
        attention=attention or (record.delta.attention if record else checkpoint.attention()),
        group_norm=group_norm or (record.delta.group_norm if record else "video"),
        tune=record.delta.tune if record else _tuning(checkpoint.training),
    )
    tensors = {name: tensor.clone() for name, tensor in checkpoint.tensors.items() if is_tuned(name)}
    if record is not None:
        tensors = {name: _stored_in(tensor, getattr(torch, record.delta_dtype)) for name, tensor in tensors.items()}
    delta = Delta(tensors, meta)
    noise_meta = _latents_meta(checkpoint, origin, facts)
    if video:
        return Imported(delta, invert(base, clip, delta, noise_meta.invert), deviation)
    return Imported(delta, None if noise is None else Latents(noise, noise_meta), deviation)


def extract_base(folder: Path, out: Path) -> Path:
    """Write the base inside a whole pipeline as a diffusers folder of safetensors that `Base.load` takes.

    Its self- and cross-attention queries are the tuned ones: what they were before is not in a checkpoint. Samples of this
    delta do not notice, for it brings its own, but the base is this clip's alone.

    Raises:
        InvalidCheckpoint: the folder lacks parts of a base.
    """
    checkpoint = PublicCheckpoint.read(folder)
    if not checkpoint.is_pipeline:
        raise InvalidCheckpoint(
            f"{folder} is a UNet alone, without {', '.join(PARTS)}: name the base that it was tuned on (--base)"
        )
    unet = UNet2DConditionModel.from_config(to_2d(checkpoint.config))
    tensors = {name: tensor for name, tensor in checkpoint.tensors.items() if "_temp." not in name}
    if odd := tensors.keys() ^ unet.state_dict().keys():
        raise InvalidCheckpoint(f"{folder} is not of a Stable Diffusion UNet that was inflated, e.g. {min(odd)}")
    dtype = next(iter(tensors.values())).dtype
    unet.to(dtype).load_state_dict(tensors)
    unet.save_pretrained(out / "unet")
    read_vae(folder).save_pretrained(out / "vae")
    read_text_encoder(folder).save_pretrained(out / "text_encoder")
    for part in ("tokenizer", "scheduler"):
        shutil.copytree(folder / part, out / part, dirs_exist_ok=True)
    return out


def _import_pipeline(path: Path, base: Base) -> Imported:
    tensors, text = read_tensors(path)
    try:
        record = Record.model_validate_json(text)
    except ValidationError as error:
        raise InvalidCheckpoint(f"{path} was not written by `tav export`: export the clip again") from error
    record.delta.origin.check(base)
    noise = tensors.pop(LATENTS, None)
    latents = None if noise is None or record.latents is None else Latents(noise, record.latents)
    return Imported(Delta(tensors, record.delta), latents, {})


def _clip_facts(checkpoint: PublicCheckpoint, facts: Facts, noise: Tensor | None, base: Base) -> dict[str, Any]:
    """Collect what is known of the clip: by `facts`, then the record, the training's settings, the latents' shape."""
    data: Any = checkpoint.training.get("train_data") or {}
    before = checkpoint.record.delta.origin if checkpoint.record else None
    shape = None if noise is None else noise.shape[2:]
    trained = (data["width"], data["height"]) if data.get("width") and data.get("height") else None
    decoded = None if shape is None else (shape[2] * base.scale, shape[1] * base.scale)
    return {
        "caption": facts.caption or (before and before.caption) or data.get("prompt"),
        "frames": facts.num_frames or (before and before.num_frames) or data.get("n_sample_frames") or (shape and shape[0]),
        "size": facts.size or (before and before.size) or trained or decoded,
        "fps": facts.fps or (before and before.fps),
    }


def _require(known: dict[str, Any], *names: str) -> None:
    if absent := [name for name in names if not known[name]]:
        raise InvalidConfig(
            f"the checkpoint does not say its clip's {', '.join(absent)}: give {', '.join(f'--{name}' for name in absent)}"
            + (" (the public implementation writes its own samples at 8 frames a second)" if "fps" in absent else "")
        )


def _origin(base: Base, known: dict[str, Any]) -> Origin:
    _require(known, "caption", "frames", "size", "fps")
    return Origin(
        base=base.name,
        fingerprint=base.fingerprint,
        caption=str(known["caption"]).strip(),
        num_frames=known["frames"],
        size=known["size"],
        fps=known["fps"],
    )


def _read_clip(video: Path, checkpoint: PublicCheckpoint, known: dict[str, Any]) -> Clip:
    _require(known, "caption", "frames", "size")
    data: Any = checkpoint.training.get("train_data") or {}
    start, stride = data.get("sample_start_idx", 0), data.get("sample_frame_rate")
    return Clip.read(video, str(known["caption"]), known["frames"], tuple(known["size"]), start, stride)


def _check_latents(noise: Tensor, origin: Origin, base: Base) -> None:
    base.check_size(*origin.size)
    width, height = (side // base.scale for side in origin.size)
    expected = (1, base.unet.config.in_channels, origin.num_frames, height, width)
    if noise.shape != expected:
        raise InvalidConfig(
            f"the inverted latents are {list(noise.shape)}, but {origin.num_frames} frames of "
            f"{origin.size[0]}x{origin.size[1]} have {list(expected)}: give the --frames and --size that they were made with"
        )


def _tuning(training: dict[str, Any]) -> TuneConfig | None:
    """Read the settings of a `config.yaml`; what it leaves out is the public implementation's default, which is ours."""
    if not training:
        return None
    names = {
        "max_train_steps": "steps",
        "learning_rate": "learning_rate",
        "adam_weight_decay": "weight_decay",
        "adam_epsilon": "eps",
        "max_grad_norm": "max_grad_norm",
        "seed": "seed",
        "gradient_checkpointing": "gradient_checkpointing",
    }
    settings = {ours: training[theirs] for theirs, ours in names.items() if training.get(theirs) is not None}
    try:
        return TuneConfig(**settings)
    except InvalidConfig as error:
        raise InvalidCheckpoint(f"config.yaml cannot be used: {error} Repair or remove it") from error


def _latents_meta(checkpoint: PublicCheckpoint, origin: Origin, facts: Facts) -> LatentsMeta:
    """Take the steps from `facts`, the record, the training's settings; else the public implementation's, which are ours."""
    record = checkpoint.record
    if record is not None and record.latents is not None and facts.inversion_steps is None:
        return record.latents.model_copy(update={"origin": origin})
    steps = facts.inversion_steps or (checkpoint.training.get("validation_data") or {}).get("num_inv_steps")
    return LatentsMeta(origin=origin, invert=InvertConfig() if steps is None else InvertConfig(num_inference_steps=steps))


def _stored_in(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Cast to the dtype that the tensor once had, where that loses nothing."""
    stored = tensor.to(dtype)
    return stored if torch.equal(stored.to(tensor.dtype), tensor) else tensor
