"""Stage `text`: the text encoder learns to say, after a caption's end, which colour, shape and ground it names.

A short warm-up, so that the UNet finds the words already told apart when it starts to listen.
"""

import logging
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from tav.eval.offline.world import COLOURS, GROUNDS, PHRASES, SHAPES, caption
from tools.offline_base import parts
from tools.offline_base.checkpoint import load_state, save_state
from tools.offline_base.vae import seen

log = logging.getLogger(__name__)

STEPS, BATCH, RATE = 600, 64, 1e-3


def caption_table(tokenizer: CLIPTokenizer, phrases: tuple[str, ...]) -> Tensor:
    """Token ids of every seen combination in every phrase, `[combinations, phrases, 24]`."""
    rows = [parts.tokenise(tokenizer, [caption(*one, phrase) for phrase in phrases]) for one in seen()]
    return torch.stack(rows)


def train(out: Path, device: torch.device) -> tuple[CLIPTokenizer, CLIPTextModel]:
    """Train, or return what is done: `out/tokenizer`, `out/text.pt`."""
    tokenizer = parts.make_tokenizer(out / "tokenizer")
    torch.manual_seed(2)
    net = parts.make_text_encoder(tokenizer).to(device)
    heads = nn.Linear(parts.TEXT_WIDTH, len(COLOURS) + len(SHAPES) + len(GROUNDS)).to(device)
    if load_state(out / "text.pt", net=net):
        return tokenizer, net
    tokens = caption_table(tokenizer, PHRASES)
    words = (list(COLOURS), list(SHAPES), list(GROUNDS))
    labels = torch.tensor([[names.index(one) for names, one in zip(words, c, strict=True)] for c in seen()])
    optimizer = torch.optim.AdamW([*net.parameters(), *heads.parameters()], RATE)
    for step in range(STEPS):
        rng = np.random.default_rng([21, step])
        which, phrase = rng.integers(len(tokens), size=BATCH), rng.integers(len(PHRASES), size=BATCH)
        ids = tokens[which, phrase]
        end = (ids == tokenizer.eos_token_id).int().argmax(1).numpy()
        place = torch.from_numpy(rng.integers(end, parts.MAX_TOKENS))  # the end token or any padding after it
        state = net(ids.to(device)).last_hidden_state[torch.arange(BATCH), place]  # [B, 96]
        guesses = heads(state).split([len(COLOURS), len(SHAPES), len(GROUNDS)], 1)
        truth = labels[which].to(device)
        loss = torch.stack([nn.functional.cross_entropy(g, truth[:, i]) for i, g in enumerate(guesses)]).sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step % 100 == 0 or step == STEPS - 1:
            right = [(g.argmax(1) == truth[:, i]).float().mean().item() for i, g in enumerate(guesses)]
            log.info("text step %d loss %.4f colour %.2f shape %.2f ground %.2f", step, loss.item(), *right)
    save_state(out / "text.pt", STEPS, net=net)
    return tokenizer, net
