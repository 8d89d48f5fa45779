"""The whole service on one machine: start it, tune a clip, sample three edits, look at them.

    make demo                                  # or: python examples/demo.py --keep
    python examples/demo.py --base CompVis/stable-diffusion-v1-4 --clip skiing.mp4 --caption "a man is skiing" \
        --edit "spider man is skiing" --edit "a man is skiing on the beach"

Everything goes through what users have: `tav platform`, the Python client, the HTTP endpoint.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
from dotenv import dotenv_values
from PIL import Image, ImageDraw, ImageFont

from tav.probe import probe
from tav.video import Frames, read_frames
from tav_client import TavClient

HERE = Path(__file__).parent
EDITS = ["a blue ball rolling on grass", "a red box rolling on grass", "a red ball rolling on snow"]


def main() -> None:
    args = arguments()
    out: Path = args.out
    out.mkdir(parents=True, exist_ok=True)
    took: dict[str, float] = {}
    platform = [str(Path(sys.executable).with_name("tav")), "platform"]
    where = ["--data-dir", str(args.data_dir)]
    try:
        with timed(took, "starting the stack"):
            subprocess.run([*platform, "up", *where, "--base", args.base, *args.platform], check=True)
        stack = dotenv_values(args.data_dir / "stack.env")
        with TavClient(stack["TAV_URL"], timeout=600) as client:
            with timed(took, "tuning job"):
                job = client.jobs.create(args.clip, caption=args.caption, validation_prompts=args.edits[:2], seed=args.seed)
                print(f"tuning job {job.id}: {args.caption!r}")
                job.wait(progress=True)
            version = client.models.version(job.model, job.version)
            print(f"registered {job.model_ref}")
            videos = []
            for number, prompt in enumerate(args.edits, 1):
                with timed(took, f"edit {number}" + (" (cold sampler)" if number == 1 else "")):
                    videos.append(sample_over_http(client.base_url, job.model_ref, prompt, out / f"edit-{number}.mp4"))
                print(f"  {prompt!r} -> {videos[-1]}")
            run = job.refresh().mlflow_url
        sheet = out / "contact-sheet.png"
        contact_sheet([args.clip, *videos], [args.caption, *args.edits], version.num_frames).save(sheet)
        print(f"\ncontact sheet    {sheet}")
        for name, file in sorted(version.files.items()):
            print(f"{name:<20} {file.size / 1e6:6.2f} MB  {file.uri}")
        print(f"MLflow           {run}\nAPI docs         {stack['TAV_URL']}/docs")
        print("\n" + "\n".join(f"{phase:<26}{seconds:7.1f} s" for phase, seconds in took.items()))
        print(f"{'in all':<26}{sum(took.values()):7.1f} s")
        if args.keep:
            print(f"\nThe stack stays up; stop it with: tav platform down --data-dir {args.data_dir}")
    finally:
        if not args.keep:
            subprocess.run([*platform, "down", *where], check=True)
            print("The stack is stopped; `make up` starts it again with everything that was made.")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Tune a clip and sample edits of it on this machine.")
    parser.add_argument("--base", default="offline", help="the shipped base, a diffusers folder or a hub id")
    parser.add_argument("--clip", type=Path, default=HERE / "clips" / "red-ball-grass.mp4")
    parser.add_argument("--caption", default="a red ball rolling on grass")
    parser.add_argument("--edit", dest="edits", action="append", help="an edited prompt; may be repeated")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out/demo"))
    parser.add_argument("--data-dir", type=Path, default=Path(".data"))
    parser.add_argument("--keep", action="store_true", help="leave the stack running")
    parser.add_argument(
        "--platform", action="append", default=[], help="a flag for `tav platform up`, e.g. --platform=--free-ports"
    )
    args = parser.parse_args()
    args.edits = args.edits or EDITS
    return args


def sample_over_http(url: str, model: str, prompt: str, path: Path) -> Path:
    """What `curl -o edit.mp4 …/v1/videos/sync` does."""
    answer = httpx.post(f"{url}/v1/videos/sync", json={"model": model, "prompt": prompt}, timeout=600)
    if answer.is_error:
        raise SystemExit(f"{prompt!r}: {answer.json()['detail']}")
    path.write_bytes(answer.content)
    return path


def contact_sheet(videos: list[Path], captions: list[str], num_frames: int, side: int = 128) -> Image.Image:
    """One row of frames per video, its caption above: the source first, then the edits."""
    rows = [row_of_frames(path, num_frames, side) for path in videos]
    font = ImageFont.load_default(16)
    gap, line = 4, 26
    height = sum(line + side + gap for _ in rows)
    sheet = Image.new("RGB", (num_frames * (side + gap) + gap, height), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (row, caption) in enumerate(zip(rows, captions, strict=True)):
        top = i * (line + side + gap)
        draw.text((gap, top + 3), caption if i else f"{caption}  (source)", "black", font)
        for k, frame in enumerate(row):
            picture = Image.fromarray(frame).resize((side, side), Image.Resampling.BICUBIC)
            sheet.paste(picture, (gap + k * (side + gap), top + line))
    return sheet


def row_of_frames(path: Path, num_frames: int, side: int) -> Frames:
    held = probe(path)
    frames, _ = read_frames(path, min(num_frames, held.num_frames), (min(side, held.width), min(side, held.height)))
    return frames


@contextmanager
def timed(took: dict[str, float], what: str):
    began = time.perf_counter()
    yield
    took[what] = time.perf_counter() - began


if __name__ == "__main__":
    main()
