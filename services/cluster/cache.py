"""The bases' weights into a machine's cache, before Ray starts there: its first tuner or sampler then only reads them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from services.settings import Settings
from tav.bases.loading import find


def fetch_bases(settings: Settings, say: Callable[[str], None] = lambda _: None) -> None:
    """Download what the settings serve and the hub has; folders and the shipped base are there already.

    Raises:
        BaseUnavailable: the hub does not have a base, or cannot be reached.
    """
    for base in settings.served_bases:
        say(f"{base}: {base if Path(base).is_file() else find(base)}")
