"""Generator of the client's generated modules: `python tools/sync_client.py`.

`tav_client/_async` is the definition; `tav_client/_sync` is generated from it token by token and never edited.
`tav_client/_sentences.py` is a copy of `tav/sentences.py`: both packages word errors alike, and neither needs the other.
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
    "AsyncListing": "Listing",
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
SENTENCES = Path(__file__).parent.parent / "tav" / "sentences.py"
INTRODUCTION = '"""The synchronous client, generated from `_async` by `tools/sync_client.py`: do not edit.'


def generate(target: Path) -> None:
    """Write the synchronous package into the folder `target`."""
    source = PACKAGE / "_async"
    rule = unasync.Rule(f"{source}/", f"{target}/", NAMES)
    unasync.unasync_files([str(file) for file in sorted(source.glob("*.py"))], [rule])
    _, map_of_modules = (source / "__init__.py").read_text().split("\n", 1)
    (target / "__init__.py").write_text(f"{INTRODUCTION}\n{map_of_modules}")
    config = PACKAGE.parent.parent.parent / "pyproject.toml"
    for arguments in (["check", "--select", "I", "--fix"], ["format"]):
        subprocess.run([sys.executable, "-m", "ruff", *arguments, "-q", "--config", config, target], check=True)


def sentences() -> str:
    """Return the text of the client's module of sentences."""
    return "# Made of tav/sentences.py by tools/sync_client.py, not to be edited.\n" + SENTENCES.read_text()


if __name__ == "__main__":
    (PACKAGE / "_sentences.py").write_text(sentences())
    generate(PACKAGE / "_sync")
