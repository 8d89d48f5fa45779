"""Compiled blocks beside the same network as it is."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from torch._dynamo.utils import counters

import tav
from tav import Base, Clip, Delta, InvertConfig, Latents, Sampler, TuneConfig, Tuner
from tav.compiling import compile_blocks
from tav.config import SampleConfig
from tav.inflation import VideoUNet, is_tuned

TUNE = TuneConfig(steps=3, learning_rate=1e-3)
SAMPLE = SampleConfig(num_inference_steps=4, guidance_scale=3.0)
INSIDE = tuple(f"up_blocks.1.attentions.1.transformer_blocks.0.attn1.to_{kind}" for kind in "qk")


@pytest.fixture(scope="module")
def delta(base: Base, clip: Clip) -> Delta:
    return tav.tune(base, clip, TUNE)


@pytest.fixture(scope="module")
def latents(base: Base, clip: Clip, delta: Delta) -> Latents:
    return tav.invert(base, clip, delta, InvertConfig(num_inference_steps=4))


@pytest.fixture(scope="module")
def quick(base: Base) -> Sampler:
    """Whose network is compiled at the first video, and again for what it has not seen."""
    return Sampler(base, compiled(tav.inflate(base.unet), "aot_eager"))


@pytest.fixture(autouse=True)
def strict() -> Any:
    """Shapes too many, and what would otherwise silently not be compiled, are errors."""
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True, suppress_errors=False):
        yield


def compiled(net: VideoUNet, backend: str) -> VideoUNet:
    compile_blocks(net, backend)
    return net


def off(one: Any, other: Any) -> int:
    return int(np.abs(one.frames.astype(int) - other.frames).max())


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"cache_interval": 2},
        {"feature_injection": 0.5, "strength": 0.75, "guidance_interval": (0.0, 0.8)},
        {"feature_injection": 0.5, "injected_layers": INSIDE},
        {"feature_injection": 0.5, "injected_layers": (*INSIDE, "up_blocks.1.resnets.1")},
    ],
)
def test_a_compiled_network_samples_the_same_video(
    base: Base, delta: Delta, latents: Latents, quick: Sampler, options: dict[str, Any]
) -> None:
    config = SAMPLE.model_copy(update=options)
    one, other = (s.sample("blue", delta=delta, latents=latents, config=config) for s in (Sampler(base), quick))
    assert off(one, other) <= 1
    if "injected_layers" in options:
        free = quick.sample("blue", delta=delta, latents=latents, config=SAMPLE)
        assert off(free, other) > 1


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_compiled_network_tunes_to_the_same_delta(base: Base, clip: Clip, delta: Delta, checkpointing: bool) -> None:
    tuner = Tuner(base)
    compiled(tuner.net, "aot_eager")
    again = tuner.tune(clip, TUNE.model_copy(update={"gradient_checkpointing": checkpointing}))
    moved = TUNE.learning_rate * TUNE.steps
    assert all((again.tensors[n].float() - t.float()).abs().max() < 0.1 * moved for n, t in delta.tensors.items())


@pytest.mark.slow
def test_blocks_alike_are_compiled_once_and_a_shape_seen_before_not_again(base: Base, delta: Delta) -> None:
    graphs = Counter[str]()

    def count(graph: torch.fx.GraphModule, _: Any) -> Callable[..., Any]:
        graphs["all"] += 1
        return graph.forward

    net = tav.inflate(base.unet)
    compile_blocks(net, count)  # type: ignore[arg-type]
    x, text = torch.randn(1, 4, 5, 8, 8), base.encode_text(["a red square"])
    blocks = sum(type(block).__name__ in ("VideoTransformerBlock", "ResnetBlock") for block in net.modules())
    with torch.no_grad():
        net(x, 500, text)
        first = graphs["all"]
        assert 0 < first < blocks
        delta.apply(net)
        net(2 * x, 3, text)
        assert graphs["all"] == first
        net(x[:, :, :3], 500, text)
        assert graphs["all"] == 2 * first


@pytest.mark.slow
def test_inductors_code_gives_the_same_and_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        block_out_channels=(16,),
        down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",),
        layers_per_block=1,
        cross_attention_dim=8,
        attention_head_dim=2,
        norm_num_groups=4,
    )
    x, text = torch.randn(1, 4, 3, 8, 8), torch.randn(1, 5, 8)

    def computed(quick: bool) -> list[torch.Tensor]:
        """A prediction and the gradients of what is tuned."""
        torch.compiler.reset()
        counters.clear()
        net = tav.inflate(unet)
        if quick:
            compile_blocks(net)
        tuned = [p.requires_grad_() for n, p in net.named_parameters() if is_tuned(n)]
        out = net.train()(x, 500, text)
        return [out.detach(), *torch.autograd.grad(out.square().sum(), tuned)]

    def misses() -> int:
        return counters["inductor"]["fxgraph_cache_miss"] + counters["aot_autograd"]["autograd_cache_miss"]

    plain, first = computed(quick=False), computed(quick=True)
    assert misses() > 0
    for one, other in zip(plain, first, strict=True):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-4 * one.abs().max())
    again = computed(quick=True)
    assert misses() == 0 and counters["aot_autograd"]["autograd_cache_hit"] > 0
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
