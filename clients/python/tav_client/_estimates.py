"""How estimates are shown: one row for each memory setting."""

from __future__ import annotations

from tav_client import schemas
from tav_client._progress import duration

COLUMNS = ("", "MEMORY SETTING", "DEVICE", "PEAK", "ON THE HOST", "TIME", "FITS")
_GIB = 2**30


def title(estimates: schemas.Estimates) -> str:
    """Describe what was estimated."""
    width, height = estimates.size
    videos = f"{estimates.videos} video{'s' * (estimates.videos != 1)}"
    return f"{estimates.num_frames} frames of {width}x{height}, {estimates.steps} steps, {videos}"


def rows(estimates: schemas.Estimates) -> list[tuple[str, ...]]:
    """List every setting, in the order of trying; an arrow marks the one that a job would begin with."""
    return [
        (
            "→" if number == estimates.chosen else "",
            setting(entry.memory),
            entry.device,
            _gib(entry.peak_memory_bytes),
            _gib(entry.host_memory_bytes),
            duration(entry.seconds),
            "yes" if entry.fits else "no",
        )
        for number, entry in enumerate(estimates.settings)
    ]


def setting(memory: schemas.JobMemory) -> str:
    """Write a memory setting in the words of `--memory`, what is off left out."""
    fields = memory.model_dump(exclude_none=True)
    return ",".join(name if value is True else f"{name}={value}" for name, value in fields.items() if value is not False)


def _gib(size: int) -> str:
    return f"{size / _GIB:.1f} GiB" if size else ""
