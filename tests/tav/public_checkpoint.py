"""A folder as the public implementation's training leaves it, made from scratch."""

import json
import shutil
from pathlib import Path

import torch

from tav import Base


def write_public_checkpoint(folder: Path, base_folder: Path) -> Path:
    """A clip "tuned" on a base of `write_random_base`: the UNet in fp32, VAE and text encoder in fp16 under the names of their
    time, everything pickled. Its clip has 5 frames of 16x16."""
    base = Base.load(str(base_folder))
    for part in ("unet", "vae", "text_encoder", "inv_latents"):
        (folder / part).mkdir(parents=True)
    for part in ("tokenizer", "scheduler"):
        shutil.copytree(base_folder / part, folder / part)
    generator = torch.Generator().manual_seed(11)
    state = {name: tensor.clone() for name, tensor in base.unet.state_dict().items()}
    for name in [name for name in state if name.endswith(("attn1.to_q.weight", "attn2.to_q.weight"))]:
        state[name] += 0.1 * torch.randn(state[name].shape, generator=generator)
    for block in {name.split(".attn1.")[0] for name in state if ".attn1." in name}:
        width = state[f"{block}.norm1.weight"].shape[0]
        for layer in ("to_q.weight", "to_k.weight", "to_v.weight", "to_out.0.weight"):
            state[f"{block}.attn_temp.{layer}"] = 0.1 * torch.randn(width, width, generator=generator)
        state[f"{block}.attn_temp.to_out.0.bias"] = 0.1 * torch.randn(width, generator=generator)
        state[f"{block}.norm_temp.weight"], state[f"{block}.norm_temp.bias"] = torch.ones(width), torch.zeros(width)
    torch.save(state, folder / "unet" / "diffusion_pytorch_model.bin")
    config = {
        "_class_name": "UNet3DConditionModel",
        "_diffusers_version": "0.11.1",
        "_name_or_path": "checkpoints/stable-diffusion-v1-4",
        "act_fn": "silu",
        "attention_head_dim": 4,
        "block_out_channels": [32, 32, 64, 64],
        "cross_attention_dim": 32,
        "down_block_types": ["CrossAttnDownBlock3D", "CrossAttnDownBlock3D", "CrossAttnDownBlock3D", "DownBlock3D"],
        "in_channels": 4,
        "layers_per_block": 1,
        "mid_block_type": "UNetMidBlock3DCrossAttn",
        "norm_num_groups": 8,
        "out_channels": 4,
        "sample_size": 64,
        "up_block_types": ["UpBlock3D", "CrossAttnUpBlock3D", "CrossAttnUpBlock3D", "CrossAttnUpBlock3D"],
    }
    (folder / "unet" / "config.json").write_text(json.dumps(config))
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    vae = {name: tensor.half() for name, tensor in base.vae.state_dict().items()}
    for new, before in old.items():
        vae = {name.replace(f".attentions.0.{new}.", f".attentions.0.{before}."): tensor for name, tensor in vae.items()}
    assert any(".query." in name for name in vae)
    torch.save(vae, folder / "vae" / "diffusion_pytorch_model.bin")
    shutil.copy(base_folder / "vae" / "config.json", folder / "vae")
    text = {name.removeprefix("text_model."): tensor.half() for name, tensor in base.text_encoder.state_dict().items()}
    text = {f"text_model.{name}": tensor for name, tensor in text.items()}
    text["text_model.embeddings.position_ids"] = torch.arange(16)[None]
    torch.save(text, folder / "text_encoder" / "pytorch_model.bin")
    shutil.copy(base_folder / "text_encoder" / "config.json", folder / "text_encoder")
    for steps in (9, 100, 40):
        latents = torch.randn(1, 4, 5, 8, 8, generator=generator).half()
        torch.save(latents, folder / "inv_latents" / f"ddim_latent-{steps}.pt")
    index = {
        "_class_name": "TuneAVideoPipeline",
        "_diffusers_version": "0.11.1",
        "scheduler": ["diffusers", "PNDMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["tuneavideo.models.unet", "UNet3DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder
