"""Stage `vae`: the autoencoder, trained on drawn pictures with extra weight on the object.

Half of the crops are centred on the object, since most of a picture is ground, and the posterior's log-variance
starts near -5: at 0 its noise drowns the latents and the encoder learns to ignore them.
"""

import logging
import math
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from tools.offline_base import parts
from tools.offline_base.checkpoint import load_state, save_state
from tools.offline_base.worlds import World

log = logging.getLogger(__name__)

BATCH, PEAK_RATE = 16, 2e-3
FULL_FROM = 0.8
"""From this share of the steps on, whole pictures instead of crops."""


def batch(world: World, step: int, side: int) -> tuple[Tensor, Tensor]:
    """Pictures `[16, 3, side, side]` in -1–1 and what counts in them, `[16, 1, side, side]`, the same for the same step."""
    rng = np.random.default_rng([11, step])
    pictures, masks = [], []
    for i in range(BATCH):
        drawn = world.draw(rng)
        corner = rng.integers(0, world.side - side + 1, 2)
        if i % 2:
            places = np.argwhere(drawn.mask)
            corner = np.clip(places[rng.integers(len(places))] - side // 2, 0, world.side - side)
        window = np.s_[corner[0] : corner[0] + side, corner[1] : corner[1] + side]
        pictures.append(drawn.pixels[window])
        masks.append(drawn.mask[window])
    x = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1
    return x.contiguous(), torch.from_numpy(np.stack(masks))[:, None].float()


def train(world: World, out: Path, device: torch.device) -> AutoencoderKL:
    """Train, or go on, or return what is done: `out/vae.pt`."""
    torch.manual_seed(1)
    net = parts.make_vae(world)
    steps, crop = world.steps["vae"], world.side * 5 // 8
    with torch.no_grad():
        assert isinstance(net.quant_conv, nn.Conv2d)
        net.quant_conv.weight[4:] *= 0.1
        assert net.quant_conv.bias is not None
        net.quant_conv.bias[4:] = -5
    net.to(device)
    optimizer = torch.optim.AdamW(net.parameters(), PEAK_RATE, weight_decay=1e-4)
    first, saved = load_state(out / "vae.pt", net=net, optimizer=optimizer), time.monotonic()
    for step in range(first, steps):
        rate = PEAK_RATE * min(1, (step + 1) / 100) * (0.51 + 0.49 * math.cos(math.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = rate
        x, mask = (t.to(device) for t in batch(world, step, world.side if step >= FULL_FROM * steps else crop))
        near = nn.functional.max_pool2d(mask, 5, 1, 2)
        posterior = net.encode(x).latent_dist
        torch.manual_seed(step)
        error = net.decode(posterior.sample()).sample - x
        loss = ((1 + 2 * near) * (error.square() + 0.1 * error.abs())).mean() + 1e-6 * posterior.kl().mean()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 50 == 0:
            psnr = -10 * torch.log10(error.square().mean() / 4)
            log.info("vae step %d loss %.4f psnr %.1f", step, loss, psnr)
        if time.monotonic() - saved > 120 or step == steps - 1:
            save_state(out / "vae.pt", step + 1, net=net, optimizer=optimizer)
            saved = time.monotonic()
    net.eval().requires_grad_(False)
    torch.manual_seed(0)
    with torch.no_grad():
        x = torch.cat([batch(world, 10_000_000 + i, world.side)[0] for i in range(16)]).to(device)
        posterior = net.encode(x).latent_dist
        psnr = -10 * torch.log10((net.decode(posterior.mean).sample.clamp(-1, 1) - x).square().mean() / 4)
        factor = round(1 / posterior.sample().std().item(), 5)
    net.register_to_config(scaling_factor=factor)
    log.info("vae done: psnr %.2f dB on new pictures, scaling factor %.5f", psnr, factor)
    return net
