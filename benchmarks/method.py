"""Times of tuning, inversion, sampling and delta swap, beside the published algorithm computed plainly (`benchmarks/plain.py`).

    make bench
    python -m benchmarks.method --base sd14 --frames 8 --size 256 --steps 2        # SD1.4's configuration, random weights
    python -m benchmarks.method --base sd14 --device cuda --dtype bf16 --frames 8 16 24 32 --size 256 512 --steps 5 --compile

Both versions run in turns in one process on the same tensors, and the best run of each counts, by its mean step; that they
compute the same is checked first. Needs `tav/` and torch alone.
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
from tav.config import InvertConfig, Progress, TuneConfig
from tav.delta import Delta, DeltaMeta, Origin
from tav.inflation import VideoUNet, inflate, is_tuned
from tav.inversion import invert
from tav.precision import DTYPES
from tav.sampling import Sampler
from tav.tuning import Tuner, is_out_of_memory

GUIDANCE = 7.5
EDIT = "a blue ball"
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
    plain: Seconds | None
    """None: it does not fit the device's memory."""
    flop: float = 0.0
    """Of the matrix products and convolutions of one step, as the plain version counts them."""
    ratio: float | None = field(init=False)

    def __post_init__(self) -> None:
        self.ratio = self.plain / self.tav if self.plain else None


class Steps:
    """Seconds a step of loops that report their steps, from the end of a loop's first to that of its last; the best loop's."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.best, self.began = device, float("inf"), 0.0

    def __call__(self, progress: Progress) -> None:
        if progress.step in (1, progress.total):  # in between a GPU does not wait for the host
            synchronize(self.device)
            now = time.perf_counter()
            if progress.step == 1:
                self.began = now
            else:
                self.best = min(self.best, (now - self.began) / (progress.total - 1))


Loop = Callable[[Steps], Any]


def in_turns(tav: Loop, plain: Loop, repeats: int, device: torch.device, flop: float) -> Pair:
    """Both loops, one after the other, several times."""
    ours, theirs, fits = Steps(device), Steps(device), True
    for _ in range(repeats):
        tav(ours)
        if fits:
            try:
                plain(theirs)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                fits = False
    return Pair(ours.best, theirs.best if fits else None, flop)


def best_of(work: Callable[[], Any], repeats: int, device: torch.device) -> Seconds:
    """Of the whole of `work`."""
    times = []
    for _ in range(repeats):
        synchronize(device)
        began = time.perf_counter()
        work()
        synchronize(device)
        times.append(time.perf_counter() - began)
    return min(times)


def peak_bytes(work: Callable[[], Any], device: torch.device) -> int | None:
    """What a GPU's allocator holds at most while `work` runs; None on the CPU, where nothing counts it."""
    if device.type != "cuda":
        return None
    torch.cuda.reset_peak_memory_stats(device)
    work()
    return torch.cuda.max_memory_allocated(device)


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


def run(base: Base, frames: int, side: int, steps: int, repeats: int, checkpointing: bool, compiled: bool) -> dict[str, Any]:
    """All phases at one size."""
    rng = np.random.default_rng(0)
    clip = Clip(rng.integers(0, 256, (frames, side, side, 3), dtype=np.uint8), 8.0, "a red ball moving on grass")
    latent = (side // base.scale, side // base.scale)
    flop, tuning_flop = operations(base, frames, latent, len(base.encode_text([""])[0]), checkpointing)
    row: dict[str, Any] = {"frames": frames, "size": [side, side], "gradient_checkpointing": checkpointing}
    phases, peak = {}, {}
    phases["tuning step"], peak["tuning"] = time_tuning(base, clip, steps, repeats, checkpointing, compiled, tuning_flop)
    gc.collect()
    net = inflate(base.unet, **base.net_config().model_dump())
    if compiled:
        compile_blocks(net)
    delta = delta_of(base, net, clip)
    peak["sampling"] = peak_bytes(lambda: sample(base, net, delta, 2, ignore), base.device)
    theirs = plain_net(base, base.net_config().group_norm)
    row["disagreement"] = disagreement(base, net, theirs, frames, latent)
    phases["inversion step"] = in_turns(
        lambda seen: invert(base, clip, delta, InvertConfig(num_inference_steps=steps), net=net, on_step=seen),
        lambda seen: plain_invert(base, theirs, clip, steps, seen),
        repeats,
        base.device,
        flop,
    )
    start = torch.randn(1, 4, frames, *latent, device=base.device)
    phases["guided sampling step"] = in_turns(
        lambda seen: sample(base, net, delta, steps, seen),
        lambda seen: plain_sample(base, theirs, start, EDIT, GUIDANCE, steps, seen),
        repeats,
        base.device,
        2 * flop,
    )
    decoding = [lambda: base.decode_latents(start), lambda: plain_decode(base, start)]
    phases["decoding"] = Pair(*(best_of(work, repeats, base.device) for work in decoding))
    row["phases"] = {name: asdict(pair) for name, pair in phases.items()}
    row["swap_seconds"] = swap_seconds(delta, net, base.device)
    row["peak_bytes"] = peak
    return row


def time_tuning(
    base: Base, clip: Clip, steps: int, repeats: int, checkpointing: bool, compiled: bool, flop: float
) -> tuple[Pair, int | None]:
    """What `tav` does once per job (encoding the clip and its caption) is not in its time."""
    config = base.tune_config(steps=steps, gradient_checkpointing=checkpointing)
    tuner = Tuner(base)
    if compiled:
        compile_blocks(tuner.net)
    held = peak_bytes(lambda: tuner.tune(clip, config.model_copy(update={"steps": 2})), base.device)
    plain = PlainTuner(base, clip, config, base.net_config().group_norm)
    pair = in_turns(lambda seen: tuner.tune(clip, config, on_step=seen), plain.tune, repeats, base.device, flop)
    return pair, held


def sample(base: Base, net: VideoUNet, delta: Delta, steps: int, on_step: Callable[[Progress], None]) -> None:
    config = base.sample_config(num_inference_steps=steps, guidance_scale=GUIDANCE, guidance_interval=(0.0, 1.0), strength=1.0)
    Sampler(base, net).sample(EDIT, delta=delta, config=config, on_step=on_step)


def ignore(progress: Progress) -> None:
    pass


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


def swap_seconds(delta: Delta, net: VideoUNet, device: torch.device) -> Seconds:
    """From (on CUDA: pinned) host memory into the network's tensors."""
    if device.type == "cuda":
        delta = Delta({n: t.pin_memory() for n, t in delta.tensors.items()}, delta.meta)
    return best_of(lambda: delta.apply(net), 5, device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="offline", help="`sd14` (random weights) or any base")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="fp32", choices=DTYPES)
    parser.add_argument("--frames", type=int, nargs="+", default=[8])
    parser.add_argument("--size", type=int, nargs="+", default=[64])
    parser.add_argument("--steps", type=int, default=6, help="of each phase, two at least; the first is not timed")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--compile", action="store_true", help="tav's blocks compiled; the plain version is not")
    parser.add_argument("--out", type=Path, help="JSON")
    asked = parser.parse_args()
    if asked.steps < 2:
        parser.error("--steps must be two at least: the first one is not timed")
    torch.set_num_threads(asked.threads)
    dtype, device = DTYPES[asked.dtype], torch.device(asked.device)
    base = sd14(asked.device, dtype) if asked.base == "sd14" else Base.load(asked.base, asked.device, dtype)
    peak = matmul_peak(device, dtype)
    rows = [
        run(base, frames, side, asked.steps, asked.repeats, asked.gradient_checkpointing, asked.compile)
        for frames in asked.frames
        for side in asked.size
    ]
    openmp = [f"{name}={value}" for name, value in os.environ.items() if name.startswith(("GOMP_", "OMP_"))]
    report = {
        "command": " ".join([*openmp, "python -m benchmarks.method", *sys.argv[1:]]),
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
            theirs = f"{p['plain']:9.3f}s{p['ratio']:7.2f}" if p["plain"] else f"{'does not fit':>17}"
            print(f"{name:22}{p['tav']:9.3f}s{theirs}{p['flop'] / 1e9:9.1f}{share:>9}")
        print(f"{'delta swap':22}{row['swap_seconds'] * 1e3:8.2f}ms")


if __name__ == "__main__":
    main()
