"""Tune one clip and sample an edit of it, without any service.

    python examples/one_clip.py                                             # the shipped base and clip, on a CPU
    python examples/one_clip.py --base CompVis/stable-diffusion-v1-4 --device cuda \
        --clip skiing.mp4 --caption "a man is skiing" --prompt "spider man is skiing"
"""

import argparse
from pathlib import Path

import torch

import tav

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description="Tune one clip and sample an edit of it.")
    parser.add_argument("--base", default="offline")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--clip", default=str(HERE / "clips" / "red-ball-grass.mp4"))
    parser.add_argument("--caption", default="a red ball rolling on grass")
    parser.add_argument("--prompt", default="a blue ball rolling on grass")
    parser.add_argument("--out", default="edit.mp4")
    args = parser.parse_args()

    base = tav.Base.load(args.base, args.device, torch.bfloat16 if args.device == "cuda" else torch.float32)
    clip = tav.Clip.read(args.clip, args.caption, **base.clip_config().model_dump())
    delta = tav.tune(base, clip, on_step=lambda p: print(f"\r{p.phase} {p.step}/{p.total} loss {p.loss:.4f}", end=""))
    latents = tav.invert(base, clip, delta)
    tav.sample(base, args.prompt, delta=delta, latents=latents).save(args.out)
    print(f"\n{args.out}")


if __name__ == "__main__":
    main()
