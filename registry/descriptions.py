"""Descriptions of models and versions for MLflow's pages, in Markdown: caption, source, links, and how to sample.

Links are relative to MLflow's pages, so that they keep the address by which the page was reached.
"""

from __future__ import annotations

import re

from registry.settings import run_path
from registry.tenants import owner_of

_SPECIAL = re.compile(r"[\\`*_\[\]<>&|~]|^[#+-]|(?<=^[0-9])\.")


def describe_version(
    caption: str, base: str, num_frames: int, size: tuple[int, int], experiment_id: str, run_id: str, source: str | None
) -> str:
    """Return the description of a version.

    Args:
        caption: of the clip.
        base: that it was made on.
        num_frames: of the clip, as tuned.
        size: width and height of the clip, as tuned.
        experiment_id: of the run that made it.
        run_id: of the same run.
        source: where an import came from; None: it was tuned from the run's `source.mp4`.
    """
    run = f"#{run_path(experiment_id, run_id)}"
    width, height = size
    origin = f"imported from {plain(source)}" if source else f"tuned from [source.mp4]({run}&artifactPath=source.mp4)"
    shape = f"{num_frames} frames of {width}x{height}, base {plain(base)}"
    return f"{plain(caption)}\n\nIt was {origin} by [this run]({run}); {shape}."


def describe_model(name: str, version: int, description: str) -> str:
    """Return the description of a model, by its newest version.

    Args:
        name: in MLflow.
        version: the newest version's number.
        description: the newest version's.
    """
    own_name = name.partition("~")[2] if "~" in name else name
    owner = f" (tenant {plain(owner_of(name))})" if "~" in name else ""
    call = f'{{"model": "{own_name}", "prompt": "…"}}'
    return f"{description}\n\nThat is version {version}, the latest. Sample it with `POST /v1/videos`: `{call}`{owner}."


def plain(text: str) -> str:
    """Escape a text so that Markdown shows it as it is, in one line."""
    return _SPECIAL.sub(r"\\\g<0>", " ".join(text.split()))
