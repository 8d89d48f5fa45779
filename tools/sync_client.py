"""Writes the synchronous client from the asynchronous one: `python tools/sync_client.py`.

`tav_client/_async` is the definition; `tav_client/_sync` is made of it token by token and never edited.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import unasync

PACKAGE = Path(__file__).parent.parent / "clients" / "python" / "tav_client"

NAMES = {
    "AsyncBatches": "Batches",
    "AsyncClient": "Client",
    "AsyncJob": "Job",
    "AsyncJobs": "Jobs",
    "AsyncModels": "Models",
    "AsyncTavClient": "TavClient",
    "AsyncTransport": "Transport",
    "AsyncUploads": "Uploads",
    "AsyncVideo": "Video",
    "AsyncVideos": "Videos",
    "_async": "_sync",
    "aclose": "close",
    "aclosing": "closing",
    "aiter_bytes": "iter_bytes",
    "aread": "read",
    "asyncio": "time",
}
INTRODUCTION = '"""The synchronous client: made of `_async` by `tools/sync_client.py`, which see; not to be edited."""\n'


def generate(target: Path) -> None:
    """Writes the synchronous package into the folder `target`."""
    source = PACKAGE / "_async"
    rule = unasync.Rule(f"{source}/", f"{target}/", NAMES)
    unasync.unasync_files([str(file) for file in sorted(source.glob("*.py"))], [rule])
    (target / "__init__.py").write_text(INTRODUCTION)
    config = PACKAGE.parent.parent.parent / "pyproject.toml"
    for arguments in (["check", "--select", "I", "--fix"], ["format"]):
        subprocess.run([sys.executable, "-m", "ruff", *arguments, "-q", "--config", config, target], check=True)


if __name__ == "__main__":
    generate(PACKAGE / "_sync")
