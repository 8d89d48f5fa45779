"""Stage `unet`: the denoiser and the text encoder, trained together on latents encoded once.

Data-parallel over processes, since on a CPU two processes of one thread do more than one of two. Everything random
is drawn from (seed, step, rank), so that a resumed run is the run that never stopped.
"""

import json
import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from tools.offline_base import parts
from tools.offline_base.checkpoint import load_state, save_state
from tools.offline_base.worlds import World

log = logging.getLogger(__name__)

BATCH = 32
"""Over all processes."""
WARM_UP, DECAY = 200, 0.25
PEAK_RATE, TEXT_RATE = 1e-3, 3e-4
EMA = 0.999
BUCKETS = 20
"""Stretches of the noise schedule, each of which counts the same in the loss."""


class Pair(nn.Module):
    """What is trained: the UNet, and the text encoder it listens to."""

    def __init__(self, unet: UNet2DConditionModel, text_encoder: CLIPTextModel) -> None:
        super().__init__()
        self.unet, self.text = unet, text_encoder

    def forward(self, latents: Tensor, timesteps: Tensor, ids: Tensor) -> Tensor:
        """Predicted noise `[B, 4, h, w]` for noisy latents, timesteps `[B]` and token ids `[B, L]`."""
        noise: Tensor = self.unet(latents, timesteps, self.text(ids).last_hidden_state, return_dict=False)[0]
        return noise


@dataclass
class Data:
    """The encoded pictures, in host memory."""

    mean: Tensor  # fp16 [N, 4, h, w], posterior mean, scaled to unit deviation
    std: Tensor  # fp16 [N, 4, h, w], posterior deviation, likewise
    weight: Tensor  # uint8 [N, h, w], share of what counts in each latent, of 255
    tokens: Tensor  # int16 [N, phrasings, L], the last of which leaves something open
    empty: Tensor  # int64 [L]

    def batch(self, step: int, rank: int, size: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Latents, noise, weights `[B, 1, h, w]`, timesteps `[B]` and token ids `[B, L]` of one step."""
        rng = np.random.default_rng([31, step, rank])
        which = torch.from_numpy(rng.integers(len(self.mean), size=size))
        shape = (2, size, *self.mean.shape[1:])
        noise, jitter = torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))
        latents = self.mean[which].float() + self.std[which].float() * jitter
        late = rng.random(size) < 1 / 3
        timesteps = np.where(late, rng.integers(400, 1000, size), rng.integers(0, 1000, size))
        fate, last = rng.random(size), self.tokens.shape[1] - 1
        phrasing = np.where(fate < 0.05, last, rng.integers(last, size=size))
        ids = self.tokens[which, torch.from_numpy(phrasing)].long()
        ids = torch.where(torch.from_numpy(fate)[:, None] > 0.90, self.empty, ids)
        weight = 1 + 2 * self.weight[which].float()[:, None] / 255
        weight = weight / weight.mean((1, 2, 3), keepdim=True)
        return latents, noise, weight, torch.from_numpy(timesteps), ids


def encode_pictures(world: World, out: Path, vae: AutoencoderKL, tokenizer: CLIPTokenizer, device: torch.device) -> None:
    """Draw the pictures and keep their latents and captions in `out/latents.pt`, once."""
    if (out / "latents.pt").exists():
        return
    rng, size = np.random.default_rng(30), 64
    kept: list[list[Tensor]] = [[], [], [], []]
    factor, scale = vae.config["scaling_factor"], world.side // world.latent_side
    for first in range(0, world.pictures, size):
        drawn = [world.draw(rng) for _ in range(min(size, world.pictures - first))]
        x = torch.from_numpy(np.stack([one.pixels for one in drawn])).permute(0, 3, 1, 2).float() / 127.5 - 1
        with torch.no_grad():
            posterior = vae.encode(x.to(device)).latent_dist
        share = torch.from_numpy(np.stack([one.mask for one in drawn])).float()
        kept[0].append((posterior.mean * factor).half().cpu())
        kept[1].append((posterior.std * factor).half().cpu())
        kept[2].append((nn.functional.avg_pool2d(share, scale) * 255).byte())
        kept[3].append(torch.stack([parts.tokenise(tokenizer, list(one.captions)) for one in drawn]).short())
        if first % (size * 100) == 0:
            log.info("unet encoded %d of %d pictures", first, world.pictures)
    torch.save([torch.cat(k) for k in kept], out / "latents.part")
    os.replace(out / "latents.part", out / "latents.pt")


def rate_at(step: int, steps: int, out: Path) -> float:
    """The learning rate's share of its peak: warm-up, constant, linear decay; 0 says stop.

    `out/finish.json` with `{"steps": N}` starts the decay now and ends the run N steps on.
    """
    begin, end = int(steps * (1 - DECAY)), steps
    wish = out / "finish.json"
    if wish.exists():
        asked = json.loads(wish.read_text())
        if "begin" not in asked:
            asked = {"begin": step, "end": step + asked["steps"]}
            wish.write_text(json.dumps(asked))
        begin, end = asked["begin"], asked["end"]
    if step >= end:
        return 0.0
    return min(1.0, (step + 1) / WARM_UP) * min(1.0, 0.02 + 0.98 * (end - step) / max(1, end - begin))


def worker(
    rank: int, workers: int, world: World, out: Path, device: torch.device, pair: Pair, tokenizer: CLIPTokenizer
) -> None:
    """One process of the training; rank 0 keeps the checkpoint `out/unet.pt`, with the averaged weights beside it."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if device.type == "cpu":
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))
    if workers > 1:
        dist.init_process_group("gloo", init_method=f"file://{out}/meet", rank=rank, world_size=workers)
    stored = torch.load(out / "latents.pt", weights_only=True)
    data = Data(*stored, parts.tokenise(tokenizer, [""])[0])
    alphas = DDPMScheduler.from_config(parts.SCHEDULER).alphas_cumprod.to(device)

    pair.to(device).train().requires_grad_(True)
    average = nn.ParameterList(p.detach().clone() for p in pair.parameters()).requires_grad_(False)
    usual = nn.Parameter(torch.zeros(BUCKETS), requires_grad=False)  # running loss of each stretch of the schedule
    running = nn.ParameterList([usual])
    groups = [
        {"params": list(pair.unet.parameters()), "peak": PEAK_RATE},
        {"params": list(pair.text.parameters()), "peak": TEXT_RATE},
    ]
    optimizer = torch.optim.AdamW(groups, PEAK_RATE, (0.9, 0.99), weight_decay=1e-2, fused=True)
    state = {"pair": pair, "average": average, "running": running, "optimizer": optimizer}
    step = load_state(out / "unet.pt", **state)
    usual = running[0]
    params = [p for p in pair.parameters() if p.requires_grad]
    began, saved, first = time.monotonic(), time.monotonic(), step
    while True:
        latents, noise, weight, timesteps, ids = (x.to(device) for x in data.batch(step, rank, BATCH // workers))
        alpha = alphas[timesteps][:, None, None, None]
        predicted = pair(alpha.sqrt() * latents + (1 - alpha).sqrt() * noise, timesteps, ids)
        each = (weight * (predicted - noise).square()).mean((1, 2, 3))  # [B]
        bucket = (timesteps * BUCKETS // 1000).cpu()
        known = usual[bucket].to(device)
        (each / torch.where(known > 0, known, each.detach())).mean().backward()

        sums = torch.zeros(2, BUCKETS)
        sums[0].index_add_(0, bucket, each.detach().float().cpu())
        sums[1].index_add_(0, bucket, torch.ones(len(bucket)))
        rate = torch.tensor([rate_at(step, world.steps["unet"], out) if rank == 0 else 0.0])
        grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in params]
        if workers > 1:
            flat = torch.cat([*(g.flatten() for g in grads), sums.flatten(), rate])
            dist.all_reduce(flat)
            rate, sums = flat[-1:], flat[-1 - 2 * BUCKETS : -1].view(2, BUCKETS)
            for p, g in zip(params, flat[: -1 - 2 * BUCKETS].split([p.numel() for p in params]), strict=True):
                p.grad = (g / workers).view_as(p)
        if rate.item() <= 0:
            break
        seen_now = sums[1] > 0
        fresh = sums[0] / sums[1].clamp(min=1)
        keep = torch.where(usual > 0, 0.99, 0.0)
        usual.data = torch.where(seen_now, keep * usual + (1 - keep) * fresh, usual)
        nn.utils.clip_grad_norm_(params, 1.0)
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * rate.item()
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        torch._foreach_lerp_(list(average), [p.detach() for p in pair.parameters()], 1 - min(EMA, step / (10 + step)))
        if rank == 0 and step % 50 == 0:
            speed = (step - first) * BATCH / (time.monotonic() - began)
            parts_of = " ".join(f"{v:.3f}" for v in usual.view(5, -1).mean(1).tolist())
            log.info("unet step %d rate %.2f loss by noise %s, %.1f samples/s", step, rate.item(), parts_of, speed)
        if rank == 0 and time.monotonic() - saved > 150:
            save_state(out / "unet.pt", step, **state)
            saved = time.monotonic()
    if rank == 0:
        save_state(out / "unet.pt", step, **state)
        log.info("unet done: %d steps, %d samples", step, step * BATCH)


def averaged(out: Path, pair: Pair) -> int:
    """Put the averaged weights of `out/unet.pt` into the pair; returns the step they are from, 0 without a checkpoint."""
    average = nn.ParameterList(p.detach().clone() for p in pair.parameters())
    step = load_state(out / "unet.pt", average=average)
    if step:
        for p, a in zip(pair.parameters(), average, strict=True):
            p.data.copy_(a)
    return step


def train(
    world: World, out: Path, device: torch.device, vae: AutoencoderKL, tokenizer: CLIPTokenizer, encoder: CLIPTextModel
) -> None:
    """Train, or go on: `out/latents.pt`, `out/unet.pt`."""
    encode_pictures(world, out, vae, tokenizer, device)
    torch.manual_seed(3)
    pair = Pair(parts.make_unet(world), encoder)
    workers = min(2, os.cpu_count() or 1) if device.type == "cpu" else 1
    (out / "meet").unlink(missing_ok=True)
    if workers == 1:
        worker(0, 1, world, out, device, pair, tokenizer)
    else:
        torch.multiprocessing.spawn(worker, (workers, world, out, device, pair, tokenizer), nprocs=workers)
