"""Stage `text`: the text encoder learns to say, after a caption's end, the value of every attribute that it names.

A short warm-up, so that the UNet finds the words already told apart when it starts to listen.
"""

import logging
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import CLIPTextModel, CLIPTokenizer

from tools.offline_base import parts
from tools.offline_base.checkpoint import load_state, save_state
from tools.offline_base.worlds import World

log = logging.getLogger(__name__)

BATCH, RATE = 64, 1e-3


def train(world: World, out: Path, device: torch.device) -> tuple[CLIPTokenizer, CLIPTextModel]:
    """Train, or return what is done: `out/tokenizer`, `out/text.pt`."""
    tokenizer = parts.make_tokenizer(out / "tokenizer", world)
    torch.manual_seed(2)
    net = parts.make_text_encoder(tokenizer, world).to(device)
    sizes = [len(values) for values in world.attributes.values()]
    heads = nn.Linear(world.text_width, sum(sizes)).to(device)
    if load_state(out / "text.pt", net=net):
        return tokenizer, net
    optimizer = torch.optim.AdamW([*net.parameters(), *heads.parameters()], RATE)
    steps = world.steps["text"]
    for step in range(steps):
        rng = np.random.default_rng([21, step])
        texts, labels = zip(*(world.describe(rng) for _ in range(BATCH)), strict=True)
        ids = parts.tokenise(tokenizer, list(texts))
        end = (ids == tokenizer.eos_token_id).int().argmax(1).numpy()
        place = torch.from_numpy(rng.integers(end, world.max_tokens))  # the end token or any padding after it
        state = net(ids.to(device)).last_hidden_state[torch.arange(BATCH), place]  # [B, C]
        guesses = heads(state).split(sizes, 1)
        truth = torch.tensor(labels, device=device)
        loss = torch.stack([nn.functional.cross_entropy(g, truth[:, i]) for i, g in enumerate(guesses)]).sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step % 100 == 0 or step == steps - 1:
            right = [f"{(g.argmax(1) == truth[:, i]).float().mean():.2f}" for i, g in enumerate(guesses)]
            told = " ".join(f"{name} {share}" for name, share in zip(world.attributes, right, strict=True))
            log.info("text step %d loss %.4f %s", step, loss.item(), told)
    save_state(out / "text.pt", steps, net=net)
    return tokenizer, net
