"""Regional compilation: the blocks that the network repeats are compiled (torch.compile), each kind of block once.

The whole network would take minutes for each shape of clip. What is compiled is kept in torch's folder for it
(`TORCHINDUCTOR_CACHE_DIR`), which all processes of a machine share.
"""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import torch
from torch import nn

from tav.attention import VideoTransformerBlock
from tav.blocks import ResnetBlock
from tav.inflation import VideoUNet

_BLOCKS = (VideoTransformerBlock, ResnetBlock)
_SHAPES = 64
"""Of one kind of block: frames, sizes and rows, in tuning, inverting and sampling. Those that come after are not compiled."""


def compile_blocks(net: VideoUNet, backend: str = "inductor") -> None:
    """Have `net`'s transformer and ResNet blocks compiled when they are first called, for each shape of clip.

    Not under DeepSpeed's stage 3: hooks on layers inside a block, by which it gathers parameters, are not called.

    Args:
        net: any; its parameters and their names stay.
        backend: of torch.compile.
    """
    torch._dynamo.config.accumulated_recompile_limit = 4096  # of all kinds of ResNet blocks together; by default 256
    for block in net.modules():
        if isinstance(block, _BLOCKS):
            shapes = tuple(parameter.shape for parameter in block.parameters())
            block.forward = partial(_compiled(type(block), shapes, backend), block)  # type: ignore[method-assign, arg-type]


def is_inside_compiled(net: nn.Module, layer: str) -> bool:
    """Say whether the layer of that name is part of a compiled block, where hooks on it are not called."""
    above = layer.split(".")[:-1]
    return any("forward" in vars(net.get_submodule(".".join(above[:depth]))) for depth in range(1, len(above) + 1))


@cache
def _compiled(block: type[nn.Module], shapes: tuple[torch.Size, ...], backend: str) -> Any:
    # One for each kind: blocks alike share what is compiled, and a call looks for its own among few others.
    apart: dict[str, Any] = {"recompile_limit": _SHAPES, "isolate_recompiles": True}  # torch's types lack them
    return torch.compile(block.forward, dynamic=False, backend=backend, **apart)
