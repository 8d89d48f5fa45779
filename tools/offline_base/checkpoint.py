"""Checkpoints of a training stage: written whole or not at all, read back where they exist."""

import os
from pathlib import Path
from typing import Any, Protocol

import torch


class Stateful(Protocol):
    """Anything with a state: a module, an optimizer."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: dict[str, Any]) -> Any: ...


def save_state(path: Path, step: int, **held: Stateful) -> None:
    """Write the step and the state of everything held, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    torch.save({"step": step, **{name: one.state_dict() for name, one in held.items()}}, part)
    os.replace(part, path)


def load_state(path: Path, **held: Stateful) -> int:
    """Fill everything held from the checkpoint and return its step; 0 where there is none."""
    if not path.exists():
        return 0
    state = torch.load(path, map_location="cpu", weights_only=True)
    for name, one in held.items():
        one.load_state_dict(state[name])
    return int(state["step"])
