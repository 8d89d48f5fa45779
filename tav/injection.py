"""Feature injection: rows of a batch take some layers' outputs from its first row (Tumanyan et al. 2023).

The first row re-makes the source; the others, asked for an edit, take over from it where things are. What is taken: the
outputs of named layers, usually the query and key projections of self-attention and a ResNet block of the decoder.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tav.compiling import is_inside_compiled
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

    with ExitStack() as stack:
        for name in layers:
            try:
                layer = net.get_submodule(name)
            except AttributeError as error:
                raise InvalidConfig(f"this base has no layer {name!r} to inject: name one of its own") from error
            hook = layer.register_forward_hook(share)
            stack.callback(hook.remove)
            if is_inside_compiled(net, name):
                stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield
