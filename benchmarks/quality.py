"""How good the edits are: drawn clips × edits × methods, judged frame by frame by the oracle.

    make quality                                     # all clips, edits and methods, into benchmarks/results/
    python -m benchmarks.quality --clips red-ball-grass --methods tuned --out /tmp/quality

Methods: `tuned` is the method as shipped; the others leave one part out: `no_tuning`, `no_inversion` (Gaussian start),
`frame_attention` (tuned, but each frame attends to itself alone).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from PIL import Image

from tav import Base, Clip, Delta, Latents, Sampler, Tuner, invert
from tav.config import AttentionMode
from tav.delta import DeltaMeta, Origin
from tav.eval.offline.clips import SCORED
from tav.eval.offline.oracle import Reading, read_clip
from tav.eval.offline.world import caption
from tav.inflation import inflate
from tav.video import Frames

CLIPS = Path(__file__).parent.parent / "examples" / "clips"
METHODS = ("tuned", "no_tuning", "no_inversion", "frame_attention")

EDITS: dict[str, dict[str, dict[str, str]]] = {
    "red-ball-grass": {"colour": {"c": "blue"}, "shape": {"s": "box"}, "ground": {"g": "snow"}},
    "blue-box-sand": {"colour": {"c": "green"}, "shape": {"s": "star"}, "ground": {"g": "bricks"}},
    "pink-star-water": {"colour": {"c": "yellow"}, "shape": {"s": "ball"}, "ground": {"g": "sand"}},
    "green-ball-snow": {"colour": {"c": "purple"}, "shape": {"s": "star"}, "ground": {"g": "grass"}},
    "purple-cross-bricks": {"colour": {"c": "orange"}, "shape": {"s": "box"}, "ground": {"g": "water"}},
    "orange-triangle-grass": {"colour": {"c": "red"}, "shape": {"s": "ball"}, "ground": {"g": "water"}},
}
"""What each clip's edits change; a fourth, `colour+ground`, changes both."""


@dataclass(frozen=True)
class Score:
    """One sampled video against what was asked. Shares are of frames, 0–1."""

    clip: str
    edit: str
    method: str
    prompt: str
    edited: float
    """All edited attributes right (none edited: all attributes right)."""
    kept: float
    """All other attributes right."""
    path: float
    """Correlation of the object's centroids with the source's, −1…1; a frame without object counts as standing still."""
    flicker: float
    """Mean change of ground pixels from frame to frame, 0–255. The source's ground stands still."""
    drift: float
    """Standard deviation over frames of the object's mean colour, 0–255."""


def edits_of(clip: str) -> dict[str, dict[str, str]]:
    """The source's own description first, then the edits: what the prompt says, as {c, s, g}."""
    colour, shape, ground = SCORED[clip].colour, SCORED[clip].shape, SCORED[clip].ground
    source = {"c": colour, "s": shape, "g": ground}
    edits = EDITS[clip] | {"colour+ground": EDITS[clip]["colour"] | EDITS[clip]["ground"]}
    return {"source": source} | {name: source | changes for name, changes in edits.items()}


def prompt_of(world: dict[str, str]) -> str:
    return caption(world["c"], world["s"], world["g"], "a {c} {s} moving on {g}")


def score(clip: str, edit: str, method: str, frames: Frames, source: list[Reading]) -> Score:
    """Judge one video by the oracle."""
    wanted = edits_of(clip)[edit]
    readings = read_clip(frames)
    right = {
        "c": np.array([r.colour == wanted["c"] for r in readings]),
        "s": np.array([r.shape == wanted["s"] for r in readings]),
        "g": np.array([r.ground == wanted["g"] for r in readings]),
    }
    changed = [k for k in right if wanted[k] != edits_of(clip)["source"][k]]
    same = [k for k in right if k not in changed]
    every = np.ones(len(readings), bool)
    return Score(
        clip=clip,
        edit=edit,
        method=method,
        prompt=prompt_of(wanted),
        edited=float(np.logical_and.reduce([right[k] for k in changed or right]).mean()),
        kept=float(np.logical_and.reduce([every, *(right[k] for k in same)]).mean()),
        path=path_correlation(readings, source),
        flicker=ground_flicker(frames, readings),
        drift=colour_drift(frames, readings),
    )


def path_correlation(readings: list[Reading], source: list[Reading]) -> float:
    """Pearson correlation over both coordinates of all frames."""
    ours, theirs = (np.array([r.centroid for r in rs]) for rs in (readings, source))
    ours, theirs = (p - np.nanmean(p, axis=0) if np.isfinite(p).any() else p for p in (ours, theirs))
    ours = np.nan_to_num(ours)
    return float((ours * theirs).sum() / max(np.linalg.norm(ours) * np.linalg.norm(theirs), 1e-9))


def ground_flicker(frames: Frames, readings: list[Reading]) -> float:
    pixels = _at_mask_size(frames)
    changes = []
    for i in range(1, len(pixels)):
        ground = ~(_grown(readings[i].mask) | _grown(readings[i - 1].mask))
        if ground.any():
            changes.append(np.abs(pixels[i][ground] - pixels[i - 1][ground]).mean())
    return float(np.mean(changes)) if changes else 0.0


def colour_drift(frames: Frames, readings: list[Reading]) -> float:
    means = [pixels[r.mask].mean(0) for pixels, r in zip(_at_mask_size(frames), readings, strict=True) if r.mask.any()]
    return float(np.std(means, axis=0).mean()) if means else 255.0


def _at_mask_size(frames: Frames) -> np.ndarray:
    return np.stack([np.asarray(Image.fromarray(f).resize((64, 64), Image.Resampling.BOX), np.float32) for f in frames])


def _grown(mask: np.ndarray, by: int = 4) -> np.ndarray:
    wide = np.pad(mask, by)
    size = mask.shape[0]
    return np.logical_or.reduce([wide[y : y + size, x : x + size] for y in range(2 * by + 1) for x in range(2 * by + 1)])


def untuned(base: Base, clip: Clip) -> Delta:
    """The delta of a job that took no step."""
    modes = base.net_config().model_dump()
    net = inflate(base.unet, **modes)
    return Delta.extract(net, DeltaMeta(origin=Origin.of(base, clip), **modes, tune=base.tune_config()))


def run_clip(
    base: Base, tuner: Tuner, sampler: Sampler, name: str, methods: list[str], strength: float | None = None
) -> tuple[list[Score], dict[str, Frames]]:
    """All edits of one clip with all methods."""
    text = (CLIPS / f"{name}.txt").read_text().strip()
    config = base.clip_config()
    clip = Clip.read(CLIPS / f"{name}.mp4", text, config.num_frames, config.size)
    source = read_clip(clip.frames)
    scores, videos = [], {f"{name}/source": clip.frames}
    made: dict[str, tuple[Delta, Latents]] = {}
    for method in methods:
        kind = "tuned" if method == "no_inversion" else method
        if kind not in made:
            attention: AttentionMode | None = "frame" if kind == "frame_attention" else None
            no_tuning = kind == "no_tuning"
            delta = untuned(base, clip) if no_tuning else tuner.tune(clip, base.tune_config(), attention=attention)
            made[kind] = delta, invert(base, clip, delta, net=sampler.net)
        delta, latents = made[kind]
        for edit, world in edits_of(name).items():
            start = None if method == "no_inversion" else latents
            video = sampler.sample(prompt_of(world), delta=delta, latents=start, config=base.sample_config(strength=strength))
            scores.append(score(name, edit, method, video.frames, source))
            videos[f"{name}/{method}/{edit}"] = video.frames
            s = scores[-1]
            print(
                f"{name:<22} {method:<16} {edit:<14} edited {s.edited:4.0%} kept {s.kept:4.0%} path {s.path:5.2f} "
                f"flicker {s.flicker:5.2f} drift {s.drift:5.2f}",
                flush=True,
            )
    return scores, videos


def summary(scores: list[Score]) -> dict[str, dict[str, dict[str, float]]]:
    """Means over clips: method -> edit -> measure, and over the edits together as `all edits`."""
    table: dict[str, dict[str, dict[str, float]]] = {}
    for method in dict.fromkeys(s.method for s in scores):
        of_method = [s for s in scores if s.method == method]
        groups = {edit: [s for s in of_method if s.edit == edit] for edit in dict.fromkeys(s.edit for s in of_method)}
        groups["all edits"] = [s for s in of_method if s.edit != "source"]
        table[method] = {
            edit: {
                measure: fmean(getattr(s, measure) for s in group) for measure in ("edited", "kept", "path", "flicker", "drift")
            }
            | {"worst_path": min(s.path for s in group)}
            for edit, group in groups.items()
        }
    return table


def markdown(table: dict[str, dict[str, dict[str, float]]]) -> str:
    lines = [
        "| method | edit | edited | kept | path (worst) | flicker | drift |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for method, edits in table.items():
        for edit, m in edits.items():
            lines.append(
                f"| {method} | {edit} | {m['edited']:.0%} | {m['kept']:.0%} | {m['path']:.2f} ({m['worst_path']:.2f}) "
                f"| {m['flicker']:.2f} | {m['drift']:.2f} |"
            )
    return "\n".join(lines)


def sheet(videos: dict[str, Frames]) -> Image.Image:
    """One row per video."""
    return Image.fromarray(np.concatenate([np.concatenate(list(frames), axis=1) for frames in videos.values()]))


def run_alone(job: tuple[str, str, list[str], int, float | None]) -> tuple[list[Score], dict[str, Frames]]:
    """One clip in a process of its own."""
    base_name, clip, methods, threads, strength = job
    torch.set_num_threads(threads)
    base = Base.load(base_name)
    return run_clip(base, Tuner(base, config=base.tune_config()), Sampler(base), clip, methods, strength)


def write(out: Path, base: Base, commands: list[str], scores: list[Score], videos: dict[str, Frames], note: str) -> None:
    """The table as JSON and Markdown, and all videos as one picture."""
    table = summary(scores)
    record = {
        "commands": commands,
        "base_fingerprint": base.fingerprint,
        "settings": base.defaults,
        "machine": note,
        "summary": table,
        "scores": [asdict(s) for s in scores],
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
    lines = "\n".join(f"    {command}" for command in commands)
    out.with_suffix(".md").write_text(f"# Quality of edits\n\n{markdown(table)}\n\n{note}\n\n{lines}\n")
    sheet(videos).save(out.with_suffix(".jpg"), quality=85)
    print(markdown(table))


def main() -> None:
    parser = argparse.ArgumentParser(description="Score the edits of drawn clips by the oracle.")
    parser.add_argument("--base", default="offline")
    parser.add_argument("--clips", nargs="*", default=list(EDITS), choices=list(EDITS))
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=METHODS)
    parser.add_argument("--strength", type=float, help="instead of the base's recommended one; 1 is the paper's")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "quality")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="clips at a time")
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    args = parser.parse_args()
    began = time.perf_counter()
    jobs = [(args.base, clip, args.methods, args.threads, args.strength) for clip in args.clips]
    with ProcessPoolExecutor(args.processes, mp_context=get_context("spawn")) as pool:
        results = list(pool.map(run_alone, jobs))
    scores = [score for part, _ in results for score in part]
    videos = {name: frames for _, part in results for name, frames in part.items()}
    words = "" if args.strength is None else f"--strength {args.strength} "
    words += f"--clips {' '.join(args.clips)} --methods {' '.join(args.methods)}"
    note = (
        f"{platform.machine()}, {args.processes} processes of {args.threads} thread(s), torch {torch.__version__}, "
        f"{time.perf_counter() - began:.0f} s"
    )
    write(args.out, Base.load(args.base), [f"python -m benchmarks.quality {words}"], scores, videos, note)


if __name__ == "__main__":
    main()
