"""Feature caching: most of the network's work is done in every n-th step only (DeepCache, Ma et al. 2023, arXiv 2312.00858).

What the deep layers of a UNet see changes little from one sampling step to the next. So a step in between takes from the last
whole one what entered the decoder's last layer, and computes only the way around: the first convolution, that layer (a ResNet
and a transformer block) and the output. diffusers' own caches (`diffusers.hooks`) skip single attentions of transformers.
"""

from __future__ import annotations

from collections.abc import Hashable
from copy import copy
from typing import Any

from torch import Tensor, nn

from tav.inflation import VideoUNet


class FeatureCache:
    """Predicts as `net` does, whole in every n-th call and for other rows than before, shallowly in between.

    Args:
        net: its parameters are shared, and its hooks run.
        interval: n; 1 keeps nothing and computes everything.
    """

    def __init__(self, net: VideoUNet, interval: int) -> None:
        self._net, self._interval = net, interval
        self._shallow, self._deep, self._below = _shallow(net)
        self._rows: Hashable = None
        self._age = 0
        """Calls since the last whole one, that one included."""

    def predict(self, latents: Tensor, t: int, text: Tensor, rows: Hashable) -> Tensor:
        """Return the network's prediction, `[B, 4, F, h, w]`.

        Args:
            latents: `[B, 4, F, h, w]`.
            t: the timestep.
            text: `[B, L, D]`.
            rows: what the batch's rows are. When it is another than in the last call, or None, the prediction is whole.
        """
        if self._interval > 1 and rows is not None and rows == self._rows and self._age < self._interval:
            self._age += 1
            near: Tensor = self._shallow(latents, t, text)
            return near
        self._rows, self._age = rows, 1
        if self._interval == 1 or rows is None:
            whole: Tensor = self._net(latents, t, text)
            return whole
        hook = self._below.register_forward_hook(self._deep.remember)
        try:
            whole = self._net(latents, t, text)
        finally:
            hook.remove()
        return whole


class _Deep(nn.Module):
    """In place of the middle of the network: what the deep layers gave last."""

    features: Tensor

    def remember(self, module: nn.Module, args: Any, output: Any) -> None:
        self.features = output[0] if isinstance(output, tuple) else output  # transformers give tuples, ResNets tensors

    def forward(self, hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        return self.features


def _shallow(net: VideoUNet) -> tuple[VideoUNet, _Deep, nn.Module]:
    """Cut `net` down to its first convolution, the decoder's last layer and its output, of the same modules. Return it, what
    stands for the rest in it, and the module whose output that is."""
    last = net.up_blocks[-1]
    deep, top = _Deep(), _copy(last)
    top.resnets = last.resnets[-1:]
    if hasattr(last, "attentions"):
        top.attentions = last.attentions[-1:]
    small: VideoUNet = _copy(net)
    small.down_blocks, small.mid_block, small.up_blocks = nn.ModuleList(), deep, nn.ModuleList([top])
    small.num_upsamplers = 0
    return small, deep, getattr(last, "attentions", last.resnets)[-2]


def _copy(module: Any) -> Any:
    """Copy a module with the same children, which can be replaced."""
    twin = copy(module)
    twin._modules = dict(module._modules)
    return twin
