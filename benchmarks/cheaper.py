"""What each way to a cheaper video costs and does: the oracle's reading of the suite's videos beside those of the default.

    python -m benchmarks.cheaper --work out/quality/work         # into benchmarks/results/cheaper.{json,md}

Deltas and inverted latents come from that folder of `make quality`, or are made there. Every variant samples every case of the
suite `offline` at seed 0 with the base's recommended settings but for what it names. Seconds are CPU seconds of one thread.
Called again, it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import record
from tav import Base
from tav.caching import FeatureCache
from tav.eval.methods import Workbench
from tav.eval.offline.suite import offline
from tav.eval.suite import RECONSTRUCTION
from tav.inflation import VideoUNet, inflate
from tav.video import Frames

VARIANTS: dict[str, dict[str, Any]] = {
    "the base's settings": {},
    "guidance in all steps": {"guidance_interval": (0.0, 1.0)},
    "guidance until 60 %": {"guidance_interval": (0.0, 0.6)},
    "cache 2": {"cache_interval": 2},
    "cache 3": {"cache_interval": 3},
    "unipc, 15 steps": {"num_inference_steps": 15, "scheduler": "unipc"},
    "dpmpp_2m, 15 steps": {"num_inference_steps": 15, "scheduler": "dpmpp_2m"},
    "unipc, 15 steps, cache 2": {"num_inference_steps": 15, "scheduler": "unipc", "cache_interval": 2},
    "ddim, 15 steps": {"num_inference_steps": 15},
    "unipc, 10 steps": {"num_inference_steps": 10, "scheduler": "unipc"},
    "cache 5": {"cache_interval": 5},
    "guidance until 40 %": {"guidance_interval": (0.0, 0.4)},
    "unipc, 15 steps, guidance until 60 %": {"num_inference_steps": 15, "scheduler": "unipc", "guidance_interval": (0.0, 0.6)},
    "guidance from 40 %": {"guidance_interval": (0.4, 1.0)},
}
EDIT_MEASURES = ("edited", "kept", "path", "flicker", "drift")


class Rows:
    """Rows of the batches that a network predicted for, whole and shallow."""

    def __init__(self) -> None:
        self.all, self.whole = 0, 0


@contextmanager
def counting(net: VideoUNet) -> Iterator[Rows]:
    """Counts rows while open: only whole predictions reach the middle of the network."""
    rows = Rows()

    def first(module: Any, args: tuple[torch.Tensor, ...]) -> None:
        rows.all += len(args[0]) // net.context.num_frames

    def middle(module: Any, args: tuple[torch.Tensor, ...]) -> None:
        rows.whole += len(args[0]) // net.context.num_frames

    hooks = [net.conv_in.register_forward_pre_hook(first), net.mid_block.register_forward_pre_hook(middle)]
    try:
        yield rows
    finally:
        for hook in hooks:
            hook.remove()


def shallow_share(unet: UNet2DConditionModel, frames: int, side: int) -> float:
    """Operations of a shallow prediction by those of a whole one, for latents of `side` x `side`; from shapes alone."""
    with FakeTensorMode(), sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        net = inflate(UNet2DConditionModel.from_config(unet.config))
        x = torch.empty(1, unet.config.in_channels, frames, side, side)
        text = torch.empty(1, 77, unet.config.cross_attention_dim)
        cache, counts = FeatureCache(net, 2), []
        for _ in range(2):
            with FlopCounterMode(display=False) as counter:
                cache.predict(x, 0, text, rows=1)
            counts.append(counter.get_total_flops())
    return counts[1] / counts[0]


def psnr(frames: Frames, default: Frames) -> float:
    """In dB, at most 99."""
    error = float(((frames.astype(float) - default) ** 2).mean())
    return min(99.0, 10 * np.log10(255**2 / error)) if error else 99.0


def summary(cases: list[dict[str, Any]]) -> dict[str, float]:
    """Means over edits; differences from the default and rows over all videos; the quickest video's seconds."""
    edits = [case for case in cases if case["edit"] != RECONSTRUCTION]
    means = {name: fmean(case[name] for case in edits) for name in EDIT_MEASURES}
    means["all_right"] = sum(case["edited"] == case["kept"] == 1 for case in edits)
    means["seconds"] = min(case["seconds"] for case in cases)  # all take the same work; others' load only lengthens it
    return means | {name: fmean(case[name] for case in cases) for name in ("psnr", "whole_rows", "shallow_rows")}


def markdown(means: dict[str, dict[str, float]], cases: int, share: dict[str, float], note: str) -> str:
    default = next(iter(means.values()))
    shares = ", ".join(f"{value:.1%} on {name}" for name, value in share.items())
    lines = [
        "# Cheaper videos",
        "",
        f"Suite `offline`, seed 0, {cases} videos a variant; from inverted latents of 30 steps. `rows`: predictions of a clip",
        "that a video takes, whole + shallow (`cache_interval`; a shallow one has so many of a whole one's operations:",
        f"{shares}). `seconds`: CPU seconds of the quickest video. `edited`, `kept`, `path`, `flicker`, `drift`:",
        "means over the edits; `all right`: edits with every attribute right in every frame. `PSNR`: against the video of the",
        "base's settings.",
        "",
        "| variant | rows | seconds | cost | edited | kept | all right | path | flicker | drift | PSNR |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, m in means.items():
        rows = f"{m['whole_rows']:.0f}" + (f" + {m['shallow_rows']:.0f}" if m["shallow_rows"] else "")
        near = f"{m['psnr']:.1f}" if m["psnr"] < 99 else "the same"
        lines.append(
            f"| {name} | {rows} | {m['seconds']:.2f} | {m['seconds'] / default['seconds']:.0%} | {m['edited']:.1%} "
            f"| {m['kept']:.1%} | {m['all_right']:.0f} | {m['path']:.3f} | {m['flicker']:.2f} | {m['drift']:.2f} | {near} |"
        )
    return "\n".join([*lines, "", note, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("out/quality/work"), help="where deltas and latents are kept")
    parser.add_argument("--again", action="store_true", help="measure what is already in the results, too")
    parser.add_argument("--out", type=Path, default=record.RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    base, suite = Base.load("offline"), offline(seeds=(0,))
    bench = Workbench(base, args.work)
    with FakeTensorMode():
        sd14 = UNet2DConditionModel(sample_size=64, cross_attention_dim=768)
    share = {"the shipped base": shallow_share(base.unet, 8, 16), "SD1.4 at 32 frames of 512×512": shallow_share(sd14, 32, 64)}
    kept = args.out / "cheaper.json"
    rows: dict[str, list[dict[str, Any]]] = json.loads(kept.read_text())["cases"] if kept.exists() and not args.again else {}
    default = args.work / "cheaper-default.npz"
    for variant, settings in VARIANTS.items():
        if variant in rows and default.exists():
            continue
        rows[variant] = []
        made: dict[str, Frames] = {}
        first = dict(np.load(default)) if settings else made
        for case in suite.cases:
            clip, name = suite.clip(case.clip), f"{case.clip} {case.edit}"
            delta = bench.tuned(clip, case.seed)
            latents = bench.inverted(clip, delta, f"seed{case.seed}")
            config = base.sample_config(seed=case.seed, **settings)
            with counting(bench.sampler.net) as counted:
                began = time.process_time()
                made[name] = bench.sampler.sample(case.prompt, delta=delta, latents=latents, config=config).frames
                seconds = time.process_time() - began
            rows[variant].append(
                {"clip": case.clip, "edit": case.edit, "psnr": psnr(made[name], first[name]), "seconds": seconds}
                | {"whole_rows": counted.whole, "shallow_rows": counted.all - counted.whole}
                | suite.judge(case, made[name], bench.clip(clip).frames)
            )
        if not settings:
            np.savez(default, **made)
        means = {name: summary(cases) for name, cases in rows.items()}
        print(variant, {name: round(value, 3) for name, value in means[variant].items()}, flush=True)
        figures = {"base": base.fingerprint, "settings": base.defaults, "shallow_share": share, "means": means, "cases": rows}
        command = record.write("cheaper", figures, args.out, show=False)
        note = f"`{command}` · base {base.fingerprint[:12]} · torch {torch.__version__}, 1 thread"
        (args.out / "cheaper.md").write_text(markdown(means, len(suite.cases), share, note))


if __name__ == "__main__":
    main()
