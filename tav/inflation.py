"""A 2-D Stable Diffusion UNet as a video network (Tune-A-Video §3.2, "network inflation").

A 3×3 convolution becomes 1×3×3: it is the 2-D convolution on a (batch·frames) batch, so the base's own layers run
unchanged. Only self-attention, the end of each transformer block and, by default, ResNet GroupNorm differ.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.activations import GEGLU
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn

from tav.attention import VideoContext, VideoTransformerBlock
from tav.blocks import FusedGroupNorm, GatedLinear, ResnetBlock, Transformer2D, Upsample
from tav.config import AttentionMode, GroupNormMode
from tav.errors import InvalidConfig
from tav.kernels.switch import wants_channels_last
from tav.networks import odd_unet

TUNED = (".attn1.to_q.", ".attn2.to_q.", ".attn_temp.")
"""Parts of the names of tuned tensors: on SD1.4 112 tensors, 74,354,880 parameters."""


def is_tuned(name: str) -> bool:
    """Say whether a parameter of that name is in a delta."""
    return any(part in name for part in TUNED)


class VideoGroupNorm(FusedGroupNorm):
    """GroupNorm over channels-in-group × frames × height × width, as the reference's 5-D input gives, or per frame."""

    def __init__(self, norm: nn.GroupNorm, context: VideoContext, silu: bool = False) -> None:
        super().__init__(norm, silu)
        self.context = context

    @property
    def frames_together(self) -> int:
        """Frames that are normalised together."""
        return self.context.num_frames if self.context.group_norm == "video" else 1


class VideoUNet(UNet2DConditionModel):
    """The inflated network. Parameter names are the reference implementation's; build one with `inflate`.

    Its tuned tensors, modes, hooks and frame count belong to one piece of work at a time: `tune`, `invert` and `sample` each
    hold `context.alone()` throughout. Callers with several threads must do the same.
    """

    context: VideoContext

    def forward(self, latents: Tensor, timesteps: Tensor | int, text: Tensor) -> Tensor:  # type: ignore[override]
        """Return the base's prediction (noise or velocity) for every frame.

        Args:
            latents: `[B, 4, F, h, w]`.
            timesteps: `[B]` or a scalar, 0 … 999.
            text: `[B, L, D]` text-encoder states.

        Returns:
            `[B, 4, F, h, w]`.
        """
        batch, _, num_frames = latents.shape[:3]
        self.context.num_frames = num_frames
        if isinstance(timesteps, int):
            timesteps = torch.full((), timesteps, device=latents.device)  # written there: a copy would wait for the device
        t = torch.as_tensor(timesteps, device=latents.device).expand(batch).repeat_interleave(num_frames)
        folded = latents.transpose(1, 2).flatten(0, 1)  # [B·F, 4, h, w]
        if wants_channels_last(folded.device):
            folded = folded.contiguous(memory_format=torch.channels_last)
        out: Tensor = super().forward(folded, t, text, return_dict=False)[0]
        return out.unflatten(0, (batch, num_frames)).transpose(1, 2)

    def _inflate(self, context: VideoContext) -> None:
        self.context = context
        for module in list(self.modules()):
            for name, child in list(module.named_children()):
                if (own := _video_module(child, context)) is not None:
                    setattr(module, name, own)
        norm, activation = self.get_submodule("conv_norm_out"), self.get_submodule("conv_act")
        assert isinstance(norm, nn.GroupNorm)
        fused = isinstance(activation, nn.SiLU)
        self.conv_norm_out = VideoGroupNorm(norm, context, silu=fused)
        self.conv_act = nn.Identity() if fused else activation


def _video_module(child: nn.Module, context: VideoContext) -> nn.Module | None:
    """Return what takes a base's module's place; None: it stays."""
    match child:
        case BasicTransformerBlock():
            return VideoTransformerBlock(child, context)
        case ResnetBlock2D():
            norms = VideoGroupNorm(child.norm1, context), VideoGroupNorm(child.norm2, context)
            if ResnetBlock.is_like(child):
                return ResnetBlock(child, norms)
            child.norm1, child.norm2 = norms
        case Transformer2DModel():  # its own GroupNorm stays per frame, as in the reference
            return Transformer2D(child)
        case Upsample2D():
            return Upsample(child)
        case GEGLU():
            return GatedLinear(child)
    return None


def shapes_of(net: nn.Module) -> dict[str, torch.Size]:
    """Return every parameter's shape. DeepSpeed's stage 3 empties the parameters themselves, so ask before it does."""
    return {name: parameter.shape for name, parameter in net.named_parameters()}


def initial_tensors(base_state: Mapping[str, Tensor], shapes: Mapping[str, torch.Size], seed: int) -> dict[str, Tensor]:
    """Make the tuned tensors' and `norm_temp`'s values before tuning, fp32 on the CPU, for an inflated network of these
    `shapes`.

    Query projections are the base's. Temporal projections are drawn from `seed` as `nn.Linear` draws them, but the output
    projection is zero, weight and bias: untuned, the new layers add nothing.
    """
    generator = torch.Generator().manual_seed(seed)
    values: dict[str, Tensor] = {}
    for name, shape in shapes.items():
        if name in base_state:
            if is_tuned(name):
                values[name] = base_state[name].detach().to("cpu", torch.float32, copy=True)
        elif ".norm_temp." in name:
            values[name] = torch.ones(shape) if name.endswith("weight") else torch.zeros(shape)
        elif ".to_out." in name:
            values[name] = torch.zeros(shape)
        else:
            bound = 1 / math.sqrt(shape[1])
            values[name] = torch.empty(shape).uniform_(-bound, bound, generator=generator)
    return values


def inflate(
    unet: UNet2DConditionModel,
    attention: AttentionMode = "sparse_causal",
    group_norm: GroupNormMode = "video",
    seed: int = 0,
) -> VideoUNet:
    """Make a video network of a base's UNet.

    Frozen parameters are shared with `unet`, not copied; the tuned ones are its own. All are frozen: `Tuner` chooses.

    Args:
        unet: a Stable Diffusion 1.x or 2.x UNet.
        attention: ST-Attn mode, see `tav.attention`.
        group_norm: `video` normalises ResNet activations over the whole video, as the reference does; `frame` per frame.
        seed: of the temporal layers' first values.

    Raises:
        InvalidConfig: the UNet's blocks are of another kind.
    """
    if odd := odd_unet(unet.config):
        raise InvalidConfig(f"this base cannot be inflated: {odd}; use a Stable Diffusion 1.x or 2.x base")
    with torch.device("meta"):
        net: VideoUNet = VideoUNet.from_config(unet.config)
        net._inflate(VideoContext(attention=attention, group_norm=group_norm))
    if wants_channels_last(unet.device):
        unet.to(memory_format=torch.channels_last)  # of the same values; the weights stay shared
    base_state = unet.state_dict()
    new = initial_tensors(base_state, shapes_of(net), seed)
    shared = {name: tensor for name, tensor in base_state.items() if name not in new}
    own = {name: tensor.to(unet.device, unet.dtype) for name, tensor in new.items()}
    net.load_state_dict(shared | own, assign=True)
    return net.eval().requires_grad_(False)
