"""The bases' weights, downloaded before Ray starts on a machine, so that its first tuner or sampler only reads them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from services.settings import Settings
from tav.bases.loading import find


def fetch_bases(settings: Settings, say: Callable[[str], None] = lambda _: None) -> None:
    """Download the bases that the settings serve from the hub; folders and the shipped base need no download.

    Args:
        settings: of the services.
        say: called with a line per base.

    Raises:
        BaseUnavailable: the hub does not have a base, or cannot be reached.
    """
    for base in settings.served_bases:
        say(f"{base}: {base if Path(base).is_file() else find(base)}")
