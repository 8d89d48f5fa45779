"""What the network's passes cost, counted without computing them.

The real network runs on torch's fake tensors, which have shapes and no content: every allocation and release happens as it
would, so that the peak is exact but for what libraries allocate inside one operation; torch's own counter counts operations.
"""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable
from typing import Any, Literal

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.functional import mse_loss
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count
from transformers import CLIPTextConfig, CLIPTextModel

from tav.estimate.profile import Cost, PassProfile, Profile
from tav.inflation import VideoUNet, inflate, is_tuned
from tav.vae import scale_of

Pass = Literal["tuning", "tuning_checkpointed", "inference", "encoding", "decoding"]
"""One forward and backward pass of the network, without or with checkpointing; one forward pass; frames through the VAE."""

_TEXT_TOKENS = 77


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query, key, value))


def _attention_backward(gradient: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_backward_flop_count(gradient, query, key, value))


_CPU_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}
"""The counter's own table has a GPU's attention only."""


PASSES: tuple[Pass, ...] = ("tuning", "tuning_checkpointed", "inference", "encoding", "decoding")
_SHAPES = ((2, 16, 16), (8, 32, 32), (8, 64, 64), (32, 64, 64))  # frames, latent height and width, growing
_LOOSE = (
    "sample_size",
    "upcast_attention",
    "scaling_factor",
    "shift_factor",
    "latents_mean",
    "latents_std",
    "force_upcast",
)
"""Of a config: what does not shape the network."""


def profile_of(
    name: str,
    unet: dict[str, Any],
    vae: dict[str, Any],
    text: dict[str, Any],
    hub_ids: tuple[str, ...] = (),
    kinds: tuple[Pass, ...] = PASSES,
) -> Profile:
    """Trace an architecture on a few shapes and fit its profile; takes minutes, of Stable Diffusion without tuning seconds.

    Args:
        name: for people.
        unet, vae, text: its parts' configs, as diffusers keeps them.
        hub_ids: of bases that have it.
        kinds: the passes that are asked for.
    """
    with FakeTensorMode():
        net = UNet2DConditionModel.from_config(unet)
        video = inflate(net)
        autoencoder, encoder = AutoencoderKL.from_config(vae), CLIPTextModel(CLIPTextConfig.from_dict(text))
    tuned = sum(p.numel() for n, p in video.named_parameters() if is_tuned(n))
    return Profile(
        name=name,
        hub_ids=hub_ids,
        unet=_shaping(net),
        vae=_shaping(autoencoder),
        frozen=_size(video) - tuned,
        tuned=tuned,
        originals=sum(p.numel() for n, p in net.named_parameters() if is_tuned(n)),
        tensors=sum(1 for _ in video.parameters()),
        vae_size=_size(autoencoder),
        text_size=_size(encoder),
        scale=scale_of(vae),
        passes={kind: _fit([(f, h * w, trace(unet, vae, kind, f, h, w)) for f, h, w in _SHAPES]) for kind in kinds},
    )


def _fit(points: list[tuple[int, int, Cost]]) -> PassProfile:
    """Fit the points; peaks of their smaller half and of their larger half are each on a line."""
    shapes = torch.tensor([[f, p] for f, p, _ in points], dtype=torch.float64)
    f, p = shapes.unbind(1)
    ones = torch.ones_like(f)

    def solve(columns: list[torch.Tensor], values: list[int]) -> tuple[float, ...]:
        targets = torch.tensor(values, dtype=torch.float64)[:, None]
        matrix = torch.stack(columns, dim=1) / targets  # so that errors count by their share
        scale = matrix.abs().amax(dim=0)
        fit = torch.linalg.lstsq(matrix / scale, torch.ones_like(targets), driver="gelsd")
        return tuple(float(f"{value:.6g}") for value in (fit.solution[:, 0] / scale).tolist())

    volume, peaks = f * p, [cost.peak_bytes for *_, cost in points]
    half = len(points) // 2
    return PassProfile(
        peak=tuple(solve([ones[part], volume[part]], peaks[part]) for part in (slice(half), slice(half, None))),
        traffic=solve([ones, volume], [cost.traffic_bytes for *_, cost in points]),
        flops=solve([ones, volume, volume * p, volume * f], [cost.flops for *_, cost in points]),
        operations=points[0][2].operations,
    )


def _shaping(part: Any) -> dict[str, Any]:
    """Return a config with diffusers' defaults filled in, without what does not shape the network."""
    shaping = {key: value for key, value in part.config.items() if not key.startswith("_") and key not in _LOOSE}
    return dict(json.loads(json.dumps(shaping)))


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def trace(unet_config: dict[str, Any], vae_config: dict[str, Any], kind: Pass, frames: int, height: int, width: int) -> Cost:
    """Count one pass.

    Args:
        unet_config, vae_config: of the base, as diffusers keeps them.
        kind: which pass.
        frames: F ≥ 1; the VAE is given all of them at once.
        height, width: of the latents.
    """
    with FakeTensorMode(), torch.random.fork_rng():
        if kind in ("encoding", "decoding"):
            return _count(*_vae_pass(vae_config, kind, frames, height, width))
        return _count(*_unet_pass(unet_config, kind, frames, height, width))


def _unet_pass(
    config: dict[str, Any], kind: Pass, frames: int, height: int, width: int
) -> tuple[nn.Module, Callable[[], None]]:
    net: VideoUNet = inflate(UNet2DConditionModel.from_config(config))
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(is_tuned(name) and kind != "inference")
    if kind == "tuning_checkpointed":
        net.enable_gradient_checkpointing()
    net.train(kind != "inference")
    latents = torch.empty(1, net.config.in_channels, frames, height, width)
    text, t = torch.empty(1, _TEXT_TOKENS, net.config.cross_attention_dim), torch.zeros(1, dtype=torch.long)

    def run() -> None:
        with torch.set_grad_enabled(kind != "inference"):
            loss = mse_loss(net(latents, t, text), latents)
        if kind != "inference":
            loss.backward()
            net.zero_grad(set_to_none=True)

    return net, run


def _vae_pass(config: dict[str, Any], kind: Pass, frames: int, height: int, width: int) -> tuple[nn.Module, Callable[[], None]]:
    vae = AutoencoderKL.from_config(config).eval().requires_grad_(False)
    scale = scale_of(vae.config)

    @torch.no_grad()
    def run() -> None:
        if kind == "encoding":
            vae.encode(torch.empty(frames, 3, height * scale, width * scale))
        else:
            vae.decode(torch.empty(frames, vae.config.latent_channels, height, width))

    return vae, run


def _count(module: nn.Module, run: Callable[[], None]) -> Cost:
    tracker = _Allocations([*module.parameters(), *module.buffers()])
    with tracker:
        run()
    counter = FlopCounterMode(display=False, custom_mapping=_CPU_ATTENTION)
    with counter:
        run()
    # All as one sum: over shapes, attention is told from the rest by its growth.
    return Cost(tracker.peak, counter.get_total_flops(), 0, tracker.traffic, tracker.operations)


class _Allocations(TorchDispatchMode):
    """Follows every storage from the operation that makes it to its release."""

    def __init__(self, known: list[Tensor]) -> None:
        super().__init__()
        self.live = self.peak = self.traffic = self.operations = 0
        self._seen: dict[int, Any] = {}
        for tensor in known:
            self._follow(tensor.untyped_storage(), 0)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.operations += 1
        for result in tree_leaves(out):
            if isinstance(result, Tensor):
                storage = result.untyped_storage()
                if storage._cdata not in self._seen:
                    self._follow(storage, storage.nbytes())
                    self.traffic += storage.nbytes()
        return out

    def _follow(self, storage: torch.UntypedStorage, size: int) -> None:
        key = storage._cdata

        def released(_: Any) -> None:
            del self._seen[key]
            self.live -= size

        self._seen[key] = weakref.ref(storage, released)
        self.live += size
        self.peak = max(self.peak, self.live)
