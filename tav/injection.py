"""Feature injection: rows of a batch take some layers' outputs from its first row (Tumanyan et al. 2023).

The first row re-makes the source; the others, asked for an edit, take over from it where things are. What is taken: the
outputs of named layers, usually the query and key projections of self-attention and a ResNet block of the decoder.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from torch import nn

from tav.attention import VideoTransformerBlock
from tav.compiling import is_inside_compiled
from tav.errors import InvalidConfig


@contextmanager
def first_row_everywhere(net: nn.Module, layers: Iterable[str], rows: int) -> Iterator[None]:
    """Have `layers` of `net` give the first row's output for all rows, while the context is open.

    Args:
        net: a UNet whose layers see `[rows·n, …]`, the n frames of one row adjacent.
        layers: names of modules: single layers or whole blocks, of whose several outputs each is taken.
        rows: in the batch.

    Raises:
        InvalidConfig: `net` has no such layer, or never calls it as one.
    """

    def share(module: nn.Module, args: Any, output: Any) -> Any:
        return _first_row(output, rows)

    with ExitStack() as stack:
        for name in layers:
            hook = _layer(net, name).register_forward_hook(share)
            stack.callback(hook.remove)
            if is_inside_compiled(net, name):
                stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield


def _first_row(output: Any, rows: int) -> Any:
    if isinstance(output, tuple):
        return tuple(_first_row(part, rows) for part in output)
    first = output[: len(output) // rows]
    return first.repeat(rows, *[1] * (output.dim() - 1))


def _layer(net: nn.Module, name: str) -> nn.Module:
    try:
        layer = net.get_submodule(name)
    except AttributeError as error:
        raise InvalidConfig(f"this base has no layer {name!r} to inject: name one of its own") from error
    above = net.get_submodule(name.rpartition(".")[0])
    split_up = isinstance(above, VideoTransformerBlock) and isinstance(layer, Attention)  # whose projections it calls itself
    if split_up or layer is net or type(layer).forward is nn.Module.forward:  # a list of layers has no forward of its own
        inside = ", ".join(f"{name}.{child}".removeprefix(".") for child, _ in layer.named_children())
        raise InvalidConfig(f"{name!r} is not one layer but several, so that it has no output: name one of {inside}")
    return layer
