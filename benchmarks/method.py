"""Times of tuning, inversion, sampling and delta swap, beside the published algorithm computed plainly (`benchmarks/plain.py`).

    make bench
    python -m benchmarks.method --base sd14 --frames 8 --size 256 --steps 1        # SD1.4's configuration, random weights
    python -m benchmarks.method --base sd14 --device cuda --dtype bf16 --frames 8 16 24 32 --size 256 512 --steps 5 --compile

Both versions run in turns in one process on the same tensors, and the best time of each counts; that they compute the same is
checked first. Needs `tav/` and torch alone.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPTextConfig, CLIPTextModel

from benchmarks.plain import PlainTuner, mixed, plain_decode, plain_invert, plain_net, plain_sample
from tav.base import Base
from tav.clip import Clip
from tav.compiling import compile_blocks
from tav.config import InvertConfig, TuneConfig
from tav.delta import Delta, DeltaMeta, Origin
from tav.inflation import VideoUNet, inflate, is_tuned
from tav.inversion import invert
from tav.sampling import Sampler
from tav.tuning import Tuner

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
GUIDANCE = 7.5
Seconds = float


class RandomBase(Base):
    """SD1.4's configuration with random weights: the same operations, and nothing to download."""

    def encode_text(self, prompts: list[str]) -> torch.Tensor:
        """As many tokens as SD1.4's, drawn from the prompts."""
        ids = [[hash((p, i)) % 49000 for i in range(77)] for p in prompts]
        with torch.no_grad():
            states: torch.Tensor = self.text_encoder(torch.tensor(ids, device=self.device)).last_hidden_state
        return states


def sd14(device: str, dtype: torch.dtype) -> Base:
    """Stable Diffusion 1.4 in its real shapes (diffusers' defaults but for what is given here)."""
    torch.manual_seed(0)
    with torch.device(device):
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768)
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
            latent_channels=4,
        )
        text = CLIPTextModel(
            CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)
        )
    for part in (unet, vae, text):
        part.to(dtype).eval().requires_grad_(False)
    schedule = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}
    schedule |= {"steps_offset": 1, "set_alpha_to_one": False, "clip_sample": False}
    return RandomBase("sd14-random", "random", unet, vae, text, None, schedule, torch.device(device), dtype)  # type: ignore[arg-type]


@dataclass
class Pair:
    """One phase: seconds per step (or per whole, where said) of both versions, and what it costs in operations."""

    tav: Seconds
    plain: Seconds
    flop: float = 0.0
    """Of the matrix products and convolutions of one step, as the plain version counts them."""
    ratio: float = field(init=False)

    def __post_init__(self) -> None:
        self.ratio = self.plain / self.tav


def in_turns(tav: Callable[[], Any], plain: Callable[[], Any], repeats: int, device: torch.device) -> tuple[Seconds, Seconds]:
    """Best time of each."""
    best = [float("inf"), float("inf")]
    for _ in range(repeats):
        for i, work in enumerate((tav, plain)):
            synchronize(device)
            began = time.perf_counter()
            work()
            synchronize(device)
            best[i] = min(best[i], time.perf_counter() - began)
    return best[0], best[1]


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matmul_peak(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a large matrix product."""
    n = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    a @ b
    best = float("inf")
    for _ in range(5):
        synchronize(device)
        began = time.perf_counter()
        a @ b
        synchronize(device)
        best = min(best, time.perf_counter() - began)
    return 2 * n**3 / best


def operations(base: Base, frames: int, latent: tuple[int, int], tokens: int, checkpointing: bool) -> tuple[float, float]:
    """FLOP of the products and convolutions of one forward pass, and of one tuning step; from shapes alone."""
    with FakeTensorMode(), sdpa_kernel(SDPBackend.MATH):
        net = inflate(UNet2DConditionModel.from_config(base.unet.config))
        x = torch.empty(1, base.unet.config.in_channels, frames, latent[1], latent[0])
        text = torch.empty(1, tokens, base.unet.config.cross_attention_dim)
        with FlopCounterMode(display=False) as forward, torch.no_grad():
            net(x, 0, text)
        for name, parameter in net.named_parameters():
            parameter.requires_grad_(is_tuned(name))
        if checkpointing:
            net.enable_gradient_checkpointing()
        with FlopCounterMode(display=False) as step:
            net.train()(x, 0, text).sum().backward()
    return float(forward.get_total_flops()), float(step.get_total_flops())


class Peak(AbstractContextManager["Peak"]):
    """Bytes the device's allocator held at most; on the CPU nothing (a process' resident set does not fall)."""

    bytes: int | None = None

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def __enter__(self) -> Peak:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        return self

    def __exit__(self, *_: object) -> None:
        if self.device.type == "cuda":
            self.bytes = torch.cuda.max_memory_allocated(self.device)


def run(base: Base, frames: int, side: int, steps: int, repeats: int, checkpointing: bool, compiled: bool) -> dict[str, Any]:
    """All phases at one size."""
    rng = np.random.default_rng(0)
    clip = Clip(rng.integers(0, 256, (frames, side, side, 3), dtype=np.uint8), 8.0, "a red ball moving on grass")
    latent = (side // base.scale, side // base.scale)
    flop, tuning_flop = operations(base, frames, latent, len(base.encode_text([""])[0]), checkpointing)
    row: dict[str, Any] = {"frames": frames, "size": [side, side], "gradient_checkpointing": checkpointing}
    phases, peak = {}, {}
    tuner = Tuner(base)
    if compiled:
        compile_blocks(tuner.net)
    phases["tuning step"], peak["tuning"] = time_tuning(tuner, clip, steps, repeats, checkpointing, tuning_flop)
    del tuner
    gc.collect()
    net, theirs = inflate(base.unet, **base.net_config().model_dump()), plain_net(base, base.net_config().group_norm)
    if compiled:
        compile_blocks(net)
    row["disagreement"] = disagreement(base, net, theirs, frames, latent)
    phases["inversion step"], peak["inversion"] = time_inversion(base, net, theirs, clip, steps, repeats, flop)
    phases["guided sampling step"], peak["sampling"] = time_sampling(base, net, theirs, clip, steps, repeats, flop)
    latents = torch.randn(1, 4, frames, *latent, device=base.device)
    phases["decoding"] = Pair(
        *in_turns(lambda: base.decode_latents(latents), lambda: plain_decode(base, latents), repeats, base.device)
    )
    row["phases"] = {name: asdict(pair) for name, pair in phases.items()}
    row["swap_seconds"] = swap_seconds(delta_of(base, net, clip), net, base.device)
    row["peak_bytes"] = peak
    return row


def time_tuning(
    tuner: Tuner, clip: Clip, steps: int, repeats: int, checkpointing: bool, flop: float
) -> tuple[Pair, int | None]:
    """Steps alone; what `tav` does once per job (encoding the clip and its caption) is not in its time."""
    base = tuner.base
    config = base.tune_config(steps=steps, gradient_checkpointing=checkpointing)
    plain = PlainTuner(base, clip, config, base.net_config().group_norm)
    times: list[Seconds] = []
    with Peak(base.device) as held:
        _, theirs = in_turns(
            lambda: tuner.tune(clip, config, on_step=record(times)),
            lambda: [plain.step(i) for i in range(steps)],
            repeats,
            base.device,
        )
    return Pair(min(times), theirs / steps, flop), held.bytes


def time_inversion(
    base: Base, net: VideoUNet, their_net: VideoUNet, clip: Clip, steps: int, repeats: int, flop: float
) -> tuple[Pair, int | None]:
    config, delta = InvertConfig(num_inference_steps=steps), delta_of(base, net, clip)
    times: list[Seconds] = []
    with Peak(base.device) as held:
        _, theirs = in_turns(
            lambda: invert(base, clip, delta, config, net=net, on_step=record(times)),
            lambda: plain_invert(base, their_net, clip, steps),
            repeats,
            base.device,
        )
    return Pair(min(times), theirs / steps, flop), held.bytes


def time_sampling(
    base: Base, net: VideoUNet, their_net: VideoUNet, clip: Clip, steps: int, repeats: int, flop: float
) -> tuple[Pair, int | None]:
    sampler, delta = Sampler(base, net), delta_of(base, net, clip)
    config = base.sample_config(num_inference_steps=steps, guidance_scale=GUIDANCE, guidance_interval=(0.0, 1.0), strength=1.0)
    shape = (1, 4, len(clip.frames), clip.size[1] // base.scale, clip.size[0] // base.scale)
    start, times = torch.randn(shape, device=base.device), []
    with Peak(base.device) as held:
        _, theirs = in_turns(
            lambda: sampler.sample("a blue ball", delta=delta, config=config, on_step=record(times)),
            lambda: plain_sample(base, their_net, start, "a blue ball", GUIDANCE, steps),
            repeats,
            base.device,
        )
    return Pair(min(times), theirs / steps, 2 * flop), held.bytes


@torch.no_grad()
def disagreement(base: Base, net: VideoUNet, theirs: VideoUNet, frames: int, latent: tuple[int, int]) -> float:
    """‖tav − plain‖ / ‖plain‖ of one prediction, with temporal layers that do something."""
    generator = torch.Generator().manual_seed(0)
    values = {n: p for n, p in net.named_parameters() if is_tuned(n)}
    for name, parameter in values.items():
        if "to_out" in name:
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    for name, parameter in theirs.named_parameters():
        if is_tuned(name):
            parameter.copy_(values[name])
    x = torch.randn(1, 4, frames, *latent, generator=generator).to(base.device, base.dtype)
    text = base.encode_text(["a blue ball"])
    with mixed(base):
        other = theirs(x, 500, text).float()
    one = net(x, 500, text).float()
    return float((one - other).norm() / other.norm())


def delta_of(base: Base, net: VideoUNet, clip: Clip) -> Delta:
    return Delta.extract(net, DeltaMeta(origin=Origin.of(base, clip), **base.net_config().model_dump(), tune=TuneConfig()))


def record(times: list[Seconds]) -> Callable[[Any], None]:
    return lambda progress: times.append(progress.seconds)


def swap_seconds(delta: Delta, net: VideoUNet, device: torch.device) -> Seconds:
    """From (on CUDA: pinned) host memory into the network's tensors."""
    if device.type == "cuda":
        delta = Delta({n: t.pin_memory() for n, t in delta.tensors.items()}, delta.meta)
    return in_turns(lambda: delta.apply(net), lambda: None, 5, device)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="offline", help="`sd14` (random weights) or any base")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="fp32", choices=DTYPES)
    parser.add_argument("--frames", type=int, nargs="+", default=[8])
    parser.add_argument("--size", type=int, nargs="+", default=[64])
    parser.add_argument("--steps", type=int, default=5, help="steps of each phase that are timed")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--compile", action="store_true", help="tav's blocks compiled; the plain version is not")
    parser.add_argument("--out", type=Path, help="JSON")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    dtype, device = DTYPES[asked.dtype], torch.device(asked.device)
    base = sd14(asked.device, dtype) if asked.base == "sd14" else Base.load(asked.base, asked.device, dtype)
    peak = matmul_peak(device, dtype)
    rows = [
        run(base, frames, side, asked.steps, asked.repeats, asked.gradient_checkpointing, asked.compile)
        for frames in asked.frames
        for side in asked.size
    ]
    report = {
        "command": "python -m benchmarks.method " + " ".join(sys.argv[1:]),
        "hardware": torch.cuda.get_device_name() if device.type == "cuda" else f"{cpu()}, {asked.threads} threads",
        "versions": {"python": platform.python_version()} | {n: version(n) for n in ("torch", "diffusers", "transformers")},
        "base": base.name,
        "dtype": asked.dtype,
        "compiled": asked.compile,
        "matmul_flop_per_second": peak,
        "results": rows,
    }
    print_table(report)
    if asked.out:
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        asked.out.write_text(json.dumps(report, indent=1) + "\n")


def cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def print_table(report: dict[str, Any]) -> None:
    peak = report["matmul_flop_per_second"]
    print(f"{report['hardware']}, {report['base']}, {report['dtype']}; a matrix product reaches {peak / 1e9:.0f} GFLOP/s")
    for row in report["results"]:
        print(f"\n{row['frames']} frames of {row['size'][0]}x{row['size'][1]}; predictions differ by {row['disagreement']:.1e}")
        print(f"{'':22}{'tav':>10}{'plain':>10}{'ratio':>7}{'GFLOP':>9}{'of peak':>9}")
        for name, p in row["phases"].items():
            share = f"{p['flop'] / p['tav'] / peak:.0%}" if p["flop"] else ""
            print(f"{name:22}{p['tav']:9.3f}s{p['plain']:9.3f}s{p['ratio']:7.2f}{p['flop'] / 1e9:9.1f}{share:>9}")
        print(f"{'delta swap':22}{row['swap_seconds'] * 1e3:8.2f}ms")


if __name__ == "__main__":
    main()
