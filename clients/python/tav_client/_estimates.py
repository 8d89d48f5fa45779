"""How estimates are shown: one row for each memory setting."""

from __future__ import annotations

from tav_client import schemas
from tav_client._progress import duration

COLUMNS = ("", "MEMORY SETTING", "DEVICE", "PEAK", "ON THE HOST", "TIME", "FITS")
_GIB = 2**30


def title(found: schemas.Estimates) -> str:
    """What was estimated."""
    width, height = found.size
    videos = f"{found.videos} video{'s' * (found.videos != 1)}"
    return f"{found.num_frames} frames of {width}x{height}, {found.steps} steps, {videos}"


def rows(found: schemas.Estimates) -> list[tuple[str, ...]]:
    """Every setting, in the order of trying; an arrow marks the one that a job would begin with."""
    return [
        (
            "→" if number == found.chosen else "",
            setting(entry.memory),
            entry.device,
            _gib(entry.peak_memory_bytes),
            _gib(entry.host_memory_bytes),
            duration(entry.seconds),
            "yes" if entry.fits else "no",
        )
        for number, entry in enumerate(found.settings)
    ]


def setting(memory: schemas.JobMemory) -> str:
    """A memory setting in the words of `--memory`, what is off left out."""
    given = memory.model_dump(exclude_none=True)
    return ",".join(name if value is True else f"{name}={value}" for name, value in given.items() if value is not False)


def _gib(size: int) -> str:
    return f"{size / _GIB:.1f} GiB" if size else ""
