"""Judge an exported base by the oracle: `python -m tools.offline_base.evaluate --base DIR --prompts 500 --out FILE.json`.

Every prompt names one combination in a random phrasing; a quarter of the prompts are combinations that training never
saw. Sampled by diffusers' own pipeline with DDIM, so that nothing of this project's method is in the figure.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from PIL import Image

from tav.eval.offline.oracle import read
from tav.eval.offline.world import PHRASES, caption, held_out
from tools.offline_base.worlds import seen

HELD_OUT_SHARE = 0.25


def load(base: Path, device: torch.device) -> StableDiffusionPipeline:
    """The base as a diffusers pipeline in fp32, with DDIM."""
    pipeline = StableDiffusionPipeline.from_pretrained(str(base), dtype=torch.float32).to(device)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def prompts(count: int, seed: int) -> list[tuple[tuple[str, str, str], bool]]:
    """Combinations to ask for and whether each is held out; each group goes evenly through all of its own."""
    rng = np.random.default_rng(seed)
    apart = round(count * HELD_OUT_SHARE)
    asked: list[tuple[tuple[str, str, str], bool]] = []
    for group, number, held in ((held_out(), apart, True), (seen(), count - apart, False)):
        order = np.concatenate([rng.permutation(len(group)) for _ in range(-(-number // len(group)))])[:number]
        asked += [(group[i], held) for i in order]
    return asked


def score(rows: list[dict[str, object]]) -> dict[str, float]:
    """Shares of the rows that are right, per attribute and in all three at once."""
    names = ("colour", "ground", "shape", "all")
    return {"prompts": len(rows)} | {n: round(float(np.mean([bool(r[n]) for r in rows])), 4) if rows else 0.0 for n in names}


def evaluate(base: Path, count: int, steps: int, guidance: float, size: int, seed: int) -> tuple[dict[str, object], np.ndarray]:
    """Sample and score; also returns the pictures uint8 `[N, 64, 64, 3]`, in prompt order."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    pipeline, asked = load(base, device), prompts(count, seed)
    rng, rows, pictures, began = np.random.default_rng(seed + 1), [], [], time.monotonic()
    for first in range(0, count, size):
        some = asked[first : first + size]
        texts = [caption(*one, PHRASES[rng.integers(len(PHRASES))]) for one, _ in some]
        noise = torch.Generator().manual_seed(seed + first)
        frames = pipeline(texts, num_inference_steps=steps, guidance_scale=guidance, generator=noise, output_type="np").images
        for ((colour, shape, ground), held), text, frame in zip(some, texts, frames, strict=True):
            picture = (frame * 255).round().astype(np.uint8)
            pictures.append(picture)
            got = read(picture)
            right = {"colour": got.colour == colour, "ground": got.ground == ground, "shape": got.shape == shape}
            said = f"{got.colour} {got.shape} {got.ground}"
            rows.append({"prompt": text, "held_out": held, "read": said, **right, "all": all(right.values())})
    result: dict[str, object] = {
        "prompts": count,
        "sampler": f"DDIM, {steps} steps, guidance {guidance}, seed {seed}",
        "overall": score(rows),
        "seen": score([r for r in rows if not r["held_out"]]),
        "held_out": score([r for r in rows if r["held_out"]]),
        "seconds": round(time.monotonic() - began),
        "wrong": [r for r in rows if not r["all"]],
    }
    return result, np.stack(pictures)


def contact_sheet(pictures: np.ndarray, columns: int) -> Image.Image:
    """Pictures `[N, 64, 64, 3]` side by side in rows."""
    rows = [np.concatenate(list(pictures[i : i + columns]), 1) for i in range(0, len(pictures) // columns * columns, columns)]
    return Image.fromarray(np.concatenate(rows, 0))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Judge an exported base by the oracle.")
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--prompts", type=int, default=500)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--guidance", type=float, default=4.0)
    parser.add_argument("--batch", type=int, default=25)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--out", type=Path, help="JSON to write")
    parser.add_argument("--sheet", type=Path, help="PNG to write: 24 pictures of seen combinations, then 24 held out")
    asked = parser.parse_args()
    result, pictures = evaluate(asked.base, asked.prompts, asked.steps, asked.guidance, asked.batch, asked.seed)
    if asked.out:
        asked.out.write_text(json.dumps(result, indent=1) + "\n")
    if asked.sheet:
        contact_sheet(np.concatenate([pictures[-24:], pictures[:24]]), 12).save(asked.sheet, optimize=True)
    for group in ("overall", "seen", "held_out"):
        print(group, result[group])


if __name__ == "__main__":
    main()
