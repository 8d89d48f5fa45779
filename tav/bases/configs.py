"""The JSON files of a base's folder: its parts' configs, and `tav.json`, the settings that it recommends. No torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tav.bases.names import local_folder

Recommended = dict[str, dict[str, Any]]
"""Settings over the paper's, by part: `clip`, `net`, `tune`, `invert`, `sample`."""


def read_config(file: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        OSError, ValueError: missing or damaged.
    """
    config = json.loads(file.read_text())
    if not isinstance(config, dict):
        raise ValueError(f"{file} does not hold a JSON object")
    return config


def recommended_in(folder: Path) -> Recommended:
    """Read a folder's `tav.json`; empty where there is none.

    Raises:
        OSError, ValueError: damaged.
    """
    file = folder / "tav.json"
    return read_config(file) if file.is_file() else {}


def recommended(name: str) -> Recommended:
    """Read the settings that a base on this machine recommends; of one that is elsewhere none are known."""
    folder = local_folder(name)
    return recommended_in(folder) if folder else {}
