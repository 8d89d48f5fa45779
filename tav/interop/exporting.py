"""A delta and its inverted latents as folders that other people's code samples from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import diffusers
import torch
from safetensors.torch import save_file

from tav.base import Base
from tav.bases.loading import find, weight_files
from tav.delta import HEADER_KEY, Delta
from tav.errors import InvalidConfig
from tav.inflation import inflate
from tav.interop.importing import CLIP, CLIP_WEIGHTS, LATENTS
from tav.interop.older import copy_texts, write_parts
from tav.interop.reference import PARTS, RECORD, Record, to_3d
from tav.latents import Latents

_PIPELINE = Path(__file__).parent / "pipeline"


def export_tune_a_video(
    base: Base, delta: Delta, latents: Latents | None, out: Path, dtype: torch.dtype = torch.float32
) -> list[str]:
    """Write a folder that the public implementation loads as its `TuneAVideoPipeline`.

    Args:
        base: what `delta` was made with.
        delta: the tuned tensors.
        latents: written as `inv_latents/ddim_latent-<tuning steps>.pt`.
        out: a folder that does not exist, or is empty.
        dtype: of the UNet's weights, all of them; `import_checkpoint` gives the delta back in its own.

    Returns:
        Sentences on what the public implementation will do differently; none, usually.

    Raises:
        BaseMismatch: made with another base.
        InvalidConfig: `out` holds something, `dtype` would lose what the delta holds, or the public implementation cannot have
            such a base at all.
    """
    _begin(base, delta, latents, out)
    net = inflate(base.unet)
    delta.apply(net)
    state = {name: tensor.to("cpu", dtype) for name, tensor in net.state_dict().items()}
    state |= {name: tensor.to(dtype) for name, tensor in delta.tensors.items()}
    if lost := [n for n, tensor in delta.tensors.items() if not torch.equal(state[n].to(tensor.dtype), tensor)]:
        raise InvalidConfig(f"{lost[0]} does not fit into {dtype} without loss: export in float32")
    record = _record(delta, latents)
    config = to_3d(dict(base.unet.config))
    differs = write_parts(base, find(base.name), out)
    _write(out / "unet" / "config.json", config)
    torch.save(state, out / "unet" / "diffusion_pytorch_model.bin")
    if latents is not None:
        steps = delta.meta.tune.steps if delta.meta.tune else 0
        (out / "inv_latents").mkdir()
        torch.save(latents.tensor.clone(), out / "inv_latents" / f"ddim_latent-{steps}.pt")
    (out / RECORD).write_text(record.model_dump_json(indent=2) + "\n")
    components = {**_components(out), "unet": ["tuneavideo.models.unet", "UNet3DConditionModel"]}
    _write(out / "model_index.json", {"_class_name": "TuneAVideoPipeline", "_diffusers_version": "0.11.1", **components})
    if delta.meta.attention != "sparse_causal":
        differs.append(
            f"this delta was tuned with {delta.meta.attention} attention; the public implementation has sparse-causal"
        )
    if delta.meta.group_norm != "video":
        differs.append("this delta was tuned with GroupNorm per frame; the public implementation's is over the video")
    return [f"{difference}: its samples will differ from ours" for difference in differs]


def export_diffusers(base: Base, delta: Delta, latents: Latents | None, out: Path) -> None:
    """Write a diffusers pipeline with its own code, which samples this clip where this project is not installed.

        DiffusionPipeline.from_pretrained(out, custom_pipeline=out, trust_remote_code=True)("spider man is skiing").frames

    It gives what `tav.sample` gives with DDIM, and takes the base's recommended settings when none are given; other samplers
    are not in it.

    Args:
        base: what `delta` was made with.
        delta: the tuned tensors.
        latents: where sampling starts; left out, it starts from noise.
        out: a folder that does not exist, or is empty.

    Raises:
        BaseMismatch: made with another base.
        InvalidConfig: `out` holds something.
    """
    _begin(base, delta, latents, out)
    _copy_base(find(base.name), out)
    shutil.copy(_PIPELINE / "pipeline.py", out)
    (out / CLIP).mkdir()
    shutil.copy(_PIPELINE / "tuned_clip.py", out / CLIP)
    tensors = {**delta.tensors, **({LATENTS: latents.tensor.contiguous()} if latents else {})}
    save_file(tensors, out / CLIP_WEIGHTS, metadata={HEADER_KEY: _record(delta, latents).model_dump_json()})
    origin, sample = delta.meta.origin, base.sample_config()
    config = {
        "_class_name": "TunedClip",
        "_diffusers_version": diffusers.__version__,
        "attention": delta.meta.attention,
        "group_norm": delta.meta.group_norm,
        "caption": origin.caption,
        "num_frames": origin.num_frames,
        "size": list(origin.size),
        "fps": origin.fps,
        "inversion_steps": latents.meta.invert.num_inference_steps if latents else None,
        "num_inference_steps": sample.num_inference_steps,
        "guidance_scale": sample.guidance_scale,
        "guidance_interval": list(sample.guidance_interval),
        "strength": sample.strength,
        "feature_injection": sample.feature_injection,
        "injected_layers": list(sample.injected_layers),
    }
    _write(out / CLIP / "config.json", config)
    components = {**_components(out), "unet": ["diffusers", "UNet2DConditionModel"], CLIP: ["tuned_clip", "TunedClip"]}
    index = {"_class_name": ["pipeline", "TunedVideoPipeline"], "_diffusers_version": diffusers.__version__, **components}
    _write(out / "model_index.json", index)


def _begin(base: Base, delta: Delta, latents: Latents | None, out: Path) -> None:
    delta.meta.origin.check(base)
    if latents is not None:
        latents.meta.origin.check(base)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InvalidConfig(f"{out} holds something: export into a new folder")
    out.mkdir(parents=True, exist_ok=True)


def _record(delta: Delta, latents: Latents | None) -> Record:
    kinds = {str(tensor.dtype).removeprefix("torch.") for tensor in delta.tensors.values()}
    if len(kinds) != 1:
        raise InvalidConfig(f"the delta's tensors are of several kinds ({', '.join(sorted(kinds))}): store it in one")
    return Record(delta=delta.meta, delta_dtype=kinds.pop(), latents=latents.meta if latents else None)


def _copy_base(folder: Path, out: Path) -> None:
    """Copy configs, vocabulary and the weights that are used, under their plain name."""
    weights = weight_files(folder)
    for part in ("unet", *PARTS):
        copy_texts(folder / part, out / part)
        if part in weights:
            shutil.copy(weights[part], out / part / weights[part].name.replace(".fp16.", "."))


def _components(out: Path) -> dict[str, list[str]]:
    scheduler = json.loads((out / "scheduler" / "scheduler_config.json").read_text()).get("_class_name", "DDIMScheduler")
    return {
        "scheduler": ["diffusers", scheduler],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "vae": ["diffusers", "AutoencoderKL"],
    }


def _write(path: Path, content: dict[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
