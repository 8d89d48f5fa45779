"""A base's tensors under the names of the original LDM layout: one `.safetensors` file, as bases are often published."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from tav import Base

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
_OPEN_CLIP = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}


def write_single_file(base: Base, path: Path) -> Path:
    """Write UNet, VAE and text encoder into one file; an SD2.x base's with OpenCLIP's last layer, which it does not use."""
    unet = {f"model.diffusion_model.{name}": tensor for name, tensor in _unet(base).items()}
    vae = {f"first_stage_model.{name}": tensor for name, tensor in _vae(base).items()}
    text = _open_clip(base) if base.unet.config.use_linear_projection else _clip(base)
    save_file({name: tensor.clone().contiguous() for name, tensor in (unet | vae | text).items()}, path)
    return path


def _renamed(state: dict[str, Tensor], moves: dict[str, str]) -> dict[str, Tensor]:
    """Every tensor under the new prefix of the longest old one that it has."""
    out = {}
    for name, tensor in state.items():
        old = max((prefix for prefix in moves if name.startswith(f"{prefix}.")), key=len)
        out[moves[old] + name.removeprefix(old)] = tensor
    return out


def _unet(base: Base) -> dict[str, Tensor]:
    layers, blocks = base.unet.config.layers_per_block, len(base.unet.config.down_block_types)
    moves = {
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
        "conv_in": "input_blocks.0.0",
        "conv_norm_out": "out.0",
        "conv_out": "out.2",
        "mid_block.attentions.0": "middle_block.1",
    }
    resnets = {"mid_block.resnets.0": "middle_block.0", "mid_block.resnets.1": "middle_block.2"}
    for i in range(blocks):
        for j in range(layers):
            place = f"input_blocks.{i * (layers + 1) + j + 1}"
            resnets[f"down_blocks.{i}.resnets.{j}"] = f"{place}.0"
            moves[f"down_blocks.{i}.attentions.{j}"] = f"{place}.1"
        moves[f"down_blocks.{i}.downsamplers.0.conv"] = f"input_blocks.{(i + 1) * (layers + 1)}.0.op"
        for j in range(layers + 1):
            place = f"output_blocks.{i * (layers + 1) + j}"
            resnets[f"up_blocks.{i}.resnets.{j}"] = f"{place}.0"
            moves[f"up_blocks.{i}.attentions.{j}"] = f"{place}.1"
        moves[f"up_blocks.{i}.upsamplers.0.conv"] = f"{place}.{1 if i == 0 else 2}.conv"  # the first block has no attention
    for old, new in resnets.items():
        moves |= {f"{old}.{part}": f"{new}.{name}" for part, name in _RESNET.items()}
    return _renamed(base.unet.state_dict(), moves)


def _vae(base: Base) -> dict[str, Tensor]:
    blocks, layers = len(base.vae.config.block_out_channels), base.vae.config.layers_per_block
    moves = {"quant_conv": "quant_conv", "post_quant_conv": "post_quant_conv"}
    for half in ("encoder", "decoder"):
        moves |= {f"{half}.{part}": f"{half}.{part}" for part in ("conv_in", "conv_out")}
        moves[f"{half}.conv_norm_out"] = f"{half}.norm_out"
        moves |= {f"{half}.mid_block.resnets.{i}": f"{half}.mid.block_{i + 1}" for i in range(2)}
        attention = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
        moves |= {f"{half}.mid_block.attentions.0.{old}": f"{half}.mid.attn_1.{new}" for old, new in attention.items()}
    for i in range(blocks):
        up = f"decoder.up.{blocks - 1 - i}"
        for j in range(layers + 1):
            moves[f"encoder.down_blocks.{i}.resnets.{j}"] = f"encoder.down.{i}.block.{j}"
            moves[f"decoder.up_blocks.{i}.resnets.{j}"] = f"{up}.block.{j}"
        moves[f"encoder.down_blocks.{i}.downsamplers.0.conv"] = f"encoder.down.{i}.downsample.conv"
        moves[f"decoder.up_blocks.{i}.upsamplers.0.conv"] = f"{up}.upsample.conv"
    out = _renamed(base.vae.state_dict(), moves)
    pointwise = {n for n in out if ".attn_1." in n and n.endswith("weight") and ".norm." not in n}  # 1×1 convolutions there
    return {n.replace("conv_shortcut", "nin_shortcut"): t[:, :, None, None] if n in pointwise else t for n, t in out.items()}


def _clip(base: Base) -> dict[str, Tensor]:
    state = base.text_encoder.state_dict()
    return {f"cond_stage_model.transformer.text_model.{name}": tensor for name, tensor in state.items()}


def _open_clip(base: Base) -> dict[str, Tensor]:
    state, width = base.text_encoder.state_dict(), base.text_encoder.config.hidden_size
    out = {
        "token_embedding.weight": state["embeddings.token_embedding.weight"],
        "positional_embedding": state["embeddings.position_embedding.weight"],
        "ln_final.weight": state["final_layer_norm.weight"],
        "ln_final.bias": state["final_layer_norm.bias"],
        "text_projection": torch.randn(width, width),
        "logit_scale": torch.tensor(1.0),
    }
    for i in range(base.text_encoder.config.num_hidden_layers):
        layer, block = f"encoder.layers.{i}", f"transformer.resblocks.{i}"
        for kind in ("weight", "bias"):
            qkv = [state[f"{layer}.self_attn.{x}_proj.{kind}"] for x in "qkv"]
            out[f"{block}.attn.in_proj_{kind}"] = torch.cat(qkv)
            out[f"{block}.attn.out_proj.{kind}"] = state[f"{layer}.self_attn.out_proj.{kind}"]
            out |= {f"{block}.{new}.{kind}": state[f"{layer}.{old}.{kind}"] for old, new in _OPEN_CLIP.items()}
    last = {n: torch.randn_like(t) for n, t in out.items() if n.startswith(f"{block}.")}
    out |= {n.replace(f"resblocks.{i}.", f"resblocks.{i + 1}."): t for n, t in last.items()}
    return {f"cond_stage_model.model.{name}": tensor for name, tensor in out.items()}
