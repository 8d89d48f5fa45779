"""What MLflow's pages say of a model and its versions, in Markdown: caption, source, links, and how to sample.

Links are relative to MLflow's pages, so that they lead to the same door by which the page was reached.
"""

from __future__ import annotations

import re

from registry.settings import run_path
from registry.tenants import owner_of

_SPECIAL = re.compile(r"[\\`*_\[\]<>&|~]|^[#+-]|(?<=^[0-9])\.")


def describe_version(
    caption: str, base: str, num_frames: int, size: tuple[int, int], experiment_id: str, run_id: str, source: str | None
) -> str:
    """Of one version.

    Args:
        caption: Of the clip.
        base: It was made on.
        num_frames: Of the clip, as tuned.
        size: Likewise, width and height.
        experiment_id: Of the run.
        run_id: That made it.
        source: Where an import came from; None: it was tuned from the run's `source.mp4`.
    """
    run = f"#{run_path(experiment_id, run_id)}"
    width, height = size
    origin = f"imported from {plain(source)}" if source else f"tuned from [source.mp4]({run}&artifactPath=source.mp4)"
    shape = f"{num_frames} frames of {width}x{height}, base {plain(base)}"
    return f"{plain(caption)}\n\nIt was {origin} by [this run]({run}); {shape}."


def describe_model(name: str, version: int, described: str) -> str:
    """Of a model, by its newest version.

    Args:
        name: As MLflow knows it.
        version: The newest one's number.
        described: Its description.
    """
    asked = name.partition("~")[2] if "~" in name else name
    owner = f" (tenant {plain(owner_of(name))})" if "~" in name else ""
    call = f'{{"model": "{asked}", "prompt": "…"}}'
    return f"{described}\n\nThat is version {version}, the latest. Sample it with `POST /v1/videos`: `{call}`{owner}."


def plain(text: str) -> str:
    """A text that Markdown shows as it is, in one line."""
    return _SPECIAL.sub(r"\\\g<0>", " ".join(text.split()))
