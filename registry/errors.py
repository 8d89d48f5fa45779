"""What can go wrong with the registry.

TavError
├── StorageUnavailable   S3 or MLflow did not answer, or refused the credentials
├── StorageRefused       S3 or MLflow refused the request itself
├── VersionInUse         an alias or a copy relies on what is to be deleted
├── NotFound             no such job, batch, video, model, version, alias or cursor
├── NotReady             a video has no content, or not yet
├── InvalidReference     a name, alias or `s3://` address that is not well-formed or not allowed
└── CorruptVersion       (tav.errors) an object's digest differs from the registered one
    └── ObjectMissing    an object is not in the bucket
"""

from __future__ import annotations

from tav.errors import CorruptVersion, TavError

__all__ = [
    "CorruptVersion",
    "InvalidReference",
    "NotFound",
    "NotReady",
    "ObjectMissing",
    "StorageRefused",
    "StorageUnavailable",
    "VersionInUse",
]


class StorageUnavailable(TavError):
    """S3 or MLflow did not answer, or refused the credentials. A retry may help.

    Callers of the service read the message, so it names settings, never addresses; the log has those.
    """

    code = "storage_unavailable"


class StorageRefused(TavError):
    """S3 or MLflow refused the request itself. A retry does not help."""

    code = "storage_refused"


class VersionInUse(TavError):
    """An alias or a copy relies on what is to be deleted."""

    code = "version_in_use"


class NotFound(TavError):
    """There is nothing of that name.

    Args:
        kind: `job`, `batch`, `video`, `model`, `version`, `alias` or `cursor`.
        name: in the request.
        hint: a sentence that says what to do; left out, one that fits the kind.
    """

    def __init__(self, kind: str, name: str, hint: str = "") -> None:
        self.kind = kind
        self.name = name
        self.code = f"{kind}_not_found"
        super().__init__(f"There is no {kind} {name!r}. {hint or _HINTS[kind]}")

    def __reduce__(self) -> tuple[type[NotFound], tuple[str, str], dict[str, object]]:
        """Keep the message when the error crosses Ray actors."""
        return type(self), (self.kind, self.name), {"args": self.args}


_HINTS = {
    "job": "List the tuning jobs to see which there are.",
    "batch": "List the tuning jobs to see their batches.",
    "import": "Ask for the model: it names its latest version and its aliases.",
    "video": "List the videos to see which there are.",
    "model": "List the models to see which there are.",
    "version": "Ask for the model: it names its latest version and its aliases.",
    "alias": "Show the model to see its aliases.",
    "cursor": "Start the list again without `after`.",
}


class NotReady(TavError):
    """A video has no content, or not yet."""

    code = "video_not_ready"


class InvalidReference(TavError):
    """A name, alias or `s3://` address that is not well-formed or not allowed."""

    code = "invalid_reference"


class ObjectMissing(CorruptVersion):
    """An object is not in the bucket."""
