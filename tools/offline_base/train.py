"""Train the offline base from nothing: `python -m tools.offline_base.train --out DIR`.

Stages, each resumable and skipped once done: `vae`, `text`, `unet`, `export`. Run again with the same directory, it
goes on from the last checkpoint (at most three minutes old). A GPU is used when there is one; on two CPU cores the
whole takes about two hours.

    python -m tools.offline_base.train --out /tmp/base/run                       # everything, then the export
    python -m tools.offline_base.train --out /tmp/base/run --finish-in 2500      # tell a running training to decay its
                                                                                 # rate now and end 2,500 steps on
    python -m tools.offline_base.train --out /tmp/base/run --stage export --base DIR   # export the averaged weights of
                                                                                 # the last checkpoint, also meanwhile
    python -m tools.offline_base.evaluate --base DIR --prompts 500               # judge an export
"""

import argparse
import json
import logging
from pathlib import Path

import torch

from tav.bases import OFFLINE
from tools.offline_base import parts, text, unet, vae
from tools.offline_base.worlds import WORLDS


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Train the offline base.")
    parser.add_argument("--world", choices=WORLDS, default="shapes", help="what the base draws")
    parser.add_argument("--out", type=Path, required=True, help="working directory: checkpoints, encoded pictures")
    parser.add_argument("--stage", choices=("all", "vae", "text", "unet", "export"), default="all")
    parser.add_argument("--base", type=Path, default=OFFLINE, help="folder the export writes (default: the shipped one)")
    parser.add_argument("--finish-in", type=int, metavar="STEPS", help="have the running UNet training end that soon")
    asked = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    out, world = asked.out.resolve(), WORLDS[asked.world]
    if asked.finish_in:
        (out / "finish.json").write_text(json.dumps({"steps": asked.finish_in}))
        return
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    autoencoder = vae.train(world, out, device)
    if asked.stage == "vae":
        return
    tokenizer, encoder = text.train(world, out, device)
    if asked.stage == "text":
        return
    if asked.stage in ("all", "unet"):
        unet.train(world, out, device, autoencoder, tokenizer, encoder)
    if asked.stage in ("all", "export"):
        torch.manual_seed(3)
        pair = unet.Pair(parts.make_unet(world), encoder)
        step = unet.averaged(out, pair)
        parts.export(asked.base, autoencoder.cpu(), out / "tokenizer", pair.text.cpu(), pair.unet.cpu(), world)
        logging.info("exported step %d to %s", step, asked.base)


if __name__ == "__main__":
    main()
