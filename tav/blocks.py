"""Stable Diffusion's blocks, made of the base's own layers, that leave activations as they lie.

diffusers' blocks copy activations into NCHW at several places. These compute the same, under the same parameter names, and
keep channels-last memory, so that a video's GroupNorm and its tokens are views of it. Where a kernel takes the tensors
(`tav.kernels`), GroupNorm with what stands around it, and GEGLU, are one kernel each.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.activations import GEGLU
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn
from torch.nn import functional as F

from tav.errors import InvalidConfig
from tav.kernels.geglu import can_use_geglu, geglu, plain_geglu
from tav.kernels.group_norm import can_use_group_norm, group_norm, plain_group_norm

_OTHER = "this base's {} are not Stable Diffusion 1.x/2.x blocks: use such a base"


def is_channels_last(x: Tensor) -> bool:
    """Return whether `[N, C, h, w]` lies in memory as `[N, h, w, C]`, and not as NCHW as well."""
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


class FusedGroupNorm(nn.GroupNorm):
    """GroupNorm over each frame, with SiLU after it and a shift before it.

    Args:
        norm: the base's, whose parameters it gets.
        silu: whether SiLU follows, where a call does not say.
    """

    def __init__(self, norm: nn.GroupNorm, silu: bool = False) -> None:
        super().__init__(norm.num_groups, norm.num_channels, norm.eps)
        self.silu = silu

    @property
    def frames_together(self) -> int:
        """Frames that are normalised together."""
        return 1

    def takes(self, x: Tensor) -> bool:
        """Return whether `x` is computed by our kernel."""
        return not torch.compiler.is_compiling() and can_use_group_norm(x, self.num_groups)

    def forward(self, x: Tensor, silu: bool | None = None, shift: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """Normalise `[B·F, C, h, w]`, to whose pixels `shift` `[B·F, C]` is added before."""
        frames, silu = self.frames_together, self.silu if silu is None else silu
        fused = self.takes(x)
        if shift is not None and not fused:
            x, shift = x + shift[:, :, None, None], None
        elif shift is not None:
            shift = shift[::frames]  # the same for all frames of a video
        compute = group_norm if fused else plain_group_norm
        return compute(x, self.num_groups, self.weight, self.bias, self.eps, num_frames=frames, silu=silu, shift=shift)


class ResnetBlock(nn.Module):
    """A base's ResNet block.

    Args:
        block: the base's, whose layers it takes over.
        norms: its two norms, in place of the base's.
    """

    def __init__(self, block: ResnetBlock2D, norms: tuple[FusedGroupNorm, FusedGroupNorm]) -> None:
        super().__init__()
        self.norm1, self.norm2 = norms
        self.conv1, self.conv2 = block.conv1, block.conv2
        self.time_emb_proj, self.conv_shortcut = block.time_emb_proj, block.conv_shortcut
        self.dropout = block.dropout

    @staticmethod
    def is_like(block: ResnetBlock2D) -> bool:
        """Return whether this module computes what the base's does; those of other kinds stay diffusers' own."""
        plain = block.time_embedding_norm == "default" and not block.skip_time_act and block.output_scale_factor == 1
        return plain and block.upsample is None and block.downsample is None and isinstance(block.nonlinearity, nn.SiLU)

    def forward(self, hidden_states: Tensor, temb: Tensor | None = None, *_: Any, **__: Any) -> Tensor:
        """Map `[B·F, C, h, w]` and the time embedding `[B·F, D]` to `[B·F, C', h, w]`. The signature is the base's block's."""
        x = self.norm1(hidden_states, silu=True)
        shift = None if self.time_emb_proj is None or temb is None else self.time_emb_proj(F.silu(temb))
        if self.norm2.takes(x) and not _has_hooks(self.conv1):  # then the bias goes with the shift
            x = F.conv2d(x, self.conv1.weight, None, self.conv1.stride, self.conv1.padding)
            assert self.conv1.bias is not None
            bias = self.conv1.bias.expand(len(x), -1)
            shift = bias if shift is None else shift + bias
        else:
            x = self.conv1(x)
        x = self.conv2(self.dropout(self.norm2(x, silu=True, shift=shift)))
        return (hidden_states if self.conv_shortcut is None else self.conv_shortcut(hidden_states)) + x


class Transformer2D(nn.Module):
    """A base's transformer over the pixels of each frame.

    Args:
        transformer: the base's, whose layers it takes over.
    """

    gradient_checkpointing = False
    """Set by diffusers' `enable_gradient_checkpointing`, with the function below."""
    _gradient_checkpointing_func: Any = None

    def __init__(self, transformer: Transformer2DModel) -> None:
        super().__init__()
        if not transformer.is_input_continuous:
            raise InvalidConfig(_OTHER.format("transformers"))
        self.norm = FusedGroupNorm(transformer.norm)
        self.proj_in, self.proj_out = transformer.proj_in, transformer.proj_out
        self.transformer_blocks = transformer.transformer_blocks

    def forward(self, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, *_: Any, **__: Any) -> tuple[Tensor]:
        """Map `[B·F, C, h, w]` and the prompt `[B, L, D]` to `[B·F, C, h, w]`, in a tuple. The signature is the base's."""
        shape, linear = hidden_states.shape, isinstance(self.proj_in, nn.Linear)
        x = self.norm(hidden_states)
        x = x if linear else self.proj_in(x)
        tokens = x.permute(0, 2, 3, 1).flatten(1, 2)  # [B·F, h·w, C]: a view, where x is channels last
        tokens = self.proj_in(tokens) if linear else tokens
        for block in self.transformer_blocks:
            if torch.is_grad_enabled() and self.gradient_checkpointing:
                tokens = self._gradient_checkpointing_func(block, tokens, None, encoder_hidden_states)
            else:
                tokens = block(tokens, encoder_hidden_states=encoder_hidden_states)
        tokens = self.proj_out(tokens) if linear else tokens
        x = tokens.unflatten(1, shape[2:]).permute(0, 3, 1, 2)
        if not is_channels_last(hidden_states):
            x = x.contiguous()
        return ((x if linear else self.proj_out(x)) + hidden_states,)


class Upsample(nn.Module):
    """A base's upsampling by two, with a convolution.

    Args:
        upsample: the base's, whose convolution it takes over.
    """

    def __init__(self, upsample: Upsample2D) -> None:
        super().__init__()
        if not upsample.use_conv or upsample.use_conv_transpose or upsample.norm is not None or upsample.name != "conv":
            raise InvalidConfig(_OTHER.format("upsamplers"))
        self.conv = upsample.conv

    def forward(self, hidden_states: Tensor, output_size: Any = None, *_: Any, **__: Any) -> Tensor:
        """Enlarge `[B·F, C, h, w]` to `[B·F, C, 2h, 2w]`, or to `output_size`. The signature is the base's."""
        if output_size is None and is_channels_last(hidden_states):  # by what torch's kernel for NHWC does not limit
            pixels = hidden_states.permute(0, 2, 3, 1)[:, :, None, :, None].expand(-1, -1, 2, -1, 2, -1)
            x = pixels.flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)
        elif output_size is None:
            x = F.interpolate(hidden_states, scale_factor=2.0, mode="nearest")
        else:
            x = F.interpolate(hidden_states, size=output_size, mode="nearest")
        out: Tensor = self.conv(x)
        return out


class GatedLinear(nn.Module):
    """The first layer of a base's feed-forward part: a projection to values and gates, and GEGLU.

    Args:
        layer: the base's, whose projection it takes over.
    """

    def __init__(self, layer: GEGLU) -> None:
        super().__init__()
        self.proj = layer.proj

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Map `[..., C]` to `[..., 4·C]`."""
        x = self.proj(hidden_states)
        return geglu(x) if not torch.compiler.is_compiling() and can_use_geglu(x) else plain_geglu(x)


def _has_hooks(layer: nn.Module) -> bool:
    """Return whether somebody waits for calls of the layer: injection for its output, DeepSpeed's stage 3 for its weights."""
    return bool(layer._forward_hooks or layer._forward_pre_hooks)
