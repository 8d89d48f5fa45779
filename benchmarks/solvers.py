"""Which solvers honour inverted latents, at how many steps: the oracle's reading of the shipped base's videos.

    python -m benchmarks.solvers        # into benchmarks/results/solvers.{json,md}

Every clip is tuned and inverted once, with the base's recommended settings (or taken from `make quality`'s folder). Then each
solver, at each number of steps, draws the clip itself and an edit from the latents alone (nothing retraced or injected: how
far they lead back), and two edits with the base's recommended settings.
"""

from __future__ import annotations

import argparse
import json
import platform
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch

from tav import Base, Clip, Delta, Latents, Sampler
from tav.eval.methods import Workbench
from tav.eval.offline.suite import OfflineSuite, offline

STEPS = (30, 15, 10, 8)
SOLVERS = ("ddim", "dpmpp_2m", "unipc")
EDITS = ("colour", "shape")
BLENDS = (0.25, 0.5, 1.0)
BARE = {"strength": 1.0, "feature_injection": 0.0}
"""From the latents alone: nothing retraced, nothing injected."""
COLUMNS = ("scheduler", "steps", "blend", "back", "edited", "kept", "path", "path_bare")


def rows_of(
    sampler: Sampler, suite: OfflineSuite, clip: Clip, name: str, delta: Delta, latents: Latents
) -> list[dict[str, Any]]:
    """All solvers on one clip, then DDIM from blended starts."""
    asked = [(scheduler, steps, 0.0) for steps in STEPS for scheduler in SOLVERS]
    asked += [("ddim", STEPS[0], blend) for blend in BLENDS]
    rows = []
    for scheduler, steps, blend in asked:
        settings = {"scheduler": scheduler, "num_inference_steps": steps, "noise_blend": blend}
        draw = partial(_draw, sampler, delta, latents, settings)
        back = draw(clip.caption, guidance_scale=1.0, **BARE).astype(float) - clip.frames
        row: dict[str, Any] = {"clip": name, "scheduler": scheduler, "steps": steps, "blend": blend}
        row["back"] = float(np.sqrt((back**2).mean()))
        cases = [case for case in suite.cases if case.clip == name and case.edit in EDITS]
        advised = [suite.judge(case, draw(case.prompt), clip.frames) for case in cases]
        row |= {measure: fmean(scores[measure] for scores in advised) for measure in ("edited", "kept", "path")}
        row["path_bare"] = fmean(
            suite.judge(case, draw(case.prompt, **BARE), clip.frames)["path"] for case in cases if case.edit == "colour"
        )
        rows.append(row)
        print(
            " ".join(f"{key}={value:.3g}" if isinstance(value, float) else f"{key}={value}" for key, value in row.items()),
            flush=True,
        )
    return rows


def _draw(
    sampler: Sampler, delta: Delta, latents: Latents, settings: dict[str, Any], prompt: str, **changes: float
) -> np.ndarray:
    config = sampler.base.sample_config(**settings, **changes)
    return sampler.sample(prompt, delta=delta, latents=latents, config=config).frames


def table(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means over clips."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in COLUMNS[:3]), []).append(row)
    return [
        dict(zip(COLUMNS[:3], key, strict=True)) | {column: fmean(r[column] for r in group) for column in COLUMNS[3:]}
        for key, group in groups.items()
    ]


def markdown(means: list[dict[str, Any]], note: str) -> str:
    lines = [
        "# Samplers and inverted latents",
        "",
        "`back`: RMS difference (0–255) from the clip when its inverted latents are sampled with its own caption, no guidance.",
        "`edited`, `kept`, `path`: colour and shape edits with the base's recommended settings; `path, bare`: the colour edit",
        "with nothing retraced or injected. Inversion took 30 DDIM steps. Means over clips.",
        "",
        "| solver | steps | noise blended in | back | edited | kept | path | path, bare |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {m['scheduler']} | {m['steps']} | {m['blend']:g} | {m['back']:.1f} | {m['edited']:.0%} | {m['kept']:.0%} "
        f"| {m['path']:.2f} | {m['path_bare']:.2f} |"
        for m in means
    ]
    return "\n".join([*lines, "", note, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare solvers from inverted latents.")
    parser.add_argument("--clips", nargs="*", default=["red-ball-grass", "pink-star-water"])
    parser.add_argument("--work", type=Path, default=Path("out/quality/work"), help="where tunings and latents are kept")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "solvers")
    args = parser.parse_args()
    torch.set_num_threads(1)
    base, suite = Base.load("offline"), offline(seeds=(0,))
    bench = Workbench(base, args.work)
    command = f"python -m benchmarks.solvers --clips {' '.join(args.clips)}"
    note = f"{command} · base {base.fingerprint[:12]} · {platform.machine()}, 1 thread, torch {torch.__version__}"
    rows: list[dict[str, Any]] = []
    for source in suite.clips:
        if source.name not in args.clips:
            continue
        delta = bench.tuned(source, seed=0)
        latents = bench.inverted(source, delta, "seed0")
        rows += rows_of(bench.sampler, suite, bench.clip(source), source.name, delta, latents)
        means = table(rows)
        record = {"command": command, "base": base.fingerprint, "settings": base.defaults, "means": means, "rows": rows}
        args.out.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
        args.out.with_suffix(".md").write_text(markdown(means, note))


if __name__ == "__main__":
    main()
