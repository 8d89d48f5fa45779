"""Feature injection: rows of a batch take some layers' outputs from its first row (Tumanyan et al. 2023).

The first row re-makes the source; the others, asked for an edit, take over from it where things are. What is taken: the
outputs of named layers, usually the query and key projections of self-attention and a ResNet block of the decoder.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from tav.errors import InvalidConfig


@contextmanager
def first_row_everywhere(net: nn.Module, layers: Iterable[str], rows: int) -> Iterator[None]:
    """While open, `layers` of `net` give the first row's output for all rows.

    Args:
        net: a UNet whose layers see `[rows·n, …]`, the n frames of one row adjacent.
        layers: names of modules.
        rows: in the batch.

    Raises:
        InvalidConfig: `net` has no such layer.
    """

    def share(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        first = output[: len(output) // rows]
        return first.repeat(rows, *[1] * (output.dim() - 1))

    hooks: list[RemovableHandle] = []
    try:
        for name in layers:
            try:
                layer = net.get_submodule(name)
            except AttributeError as error:
                raise InvalidConfig(f"this base has no layer {name!r} to inject: name one of its own") from error
            hooks.append(layer.register_forward_hook(share))
        yield
    finally:
        for hook in hooks:
            hook.remove()
