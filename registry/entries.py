"""The entries of MLflow's model registry: our versions, copies of them, and other people's.

People promote a version with MLflow's own `copy_model_version`, which copies its tags and so names the same objects; they
register versions by hand, under our models' names too; and they rename models. So a name does not say where objects are, and
objects are in use as long as any version names them.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator

from mlflow.entities.model_registry import ModelVersion as MlflowVersion
from pydantic import ValidationError

from registry.objects import parse_uri
from registry.settings import RegistrySettings
from registry.tracking import connect, mlflow_errors, quoted, tag_equals
from tav.errors import TavError
from tav_client.schemas import ModelVersion, StoredFile

log = logging.getLogger(__name__)

JOB = "tav.job_id"
INFO = "tav.info"
FILES = "tav.files"
"""Tags of our versions: the run that made it, what it was made with, and its files."""

_FOLDER = re.compile(r"models/[^/]+/[0-9a-f]{32}/")
_PAGE = 200


class Entries:
    """The entries of MLflow's registry. Methods block and change nothing."""

    def __init__(self, settings: RegistrySettings) -> None:
        self.settings = settings
        self._client = connect(settings)

    def named(self, name: str) -> Iterator[MlflowVersion]:
        """Return all versions of a model, newest first, also those that others registered."""
        return self._search(f"name = {quoted(name)}")

    def of_run(self, run_id: str) -> list[MlflowVersion]:
        """Return our versions with a run's result: first what it registered, then copies, oldest first."""
        versions = self._search(tag_equals(JOB, run_id))
        return sorted(versions, key=lambda mv: (is_copy(mv), mv.creation_timestamp, mv.name, int(mv.version)))

    def naming(self, folder: str) -> list[MlflowVersion]:
        """Return all versions that name a folder's objects: by their files, or as a source that was registered by hand.

        Args:
            folder: `s3://bucket/models/NAME/RUN/`.
        """
        ours = self.of_run(folder.rstrip("/").rpartition("/")[2])
        by_hand = self._search(f"source_path LIKE {quoted(folder.rstrip('/') + '%')}")
        versions = {(mv.name, mv.version): mv for mv in [*ours, *by_hand]}
        return [mv for mv in versions.values() if f"{mv.source}/".startswith(folder) or folder_of(version_of(mv)) == folder]

    def _search(self, condition: str) -> Iterator[MlflowVersion]:
        token = None
        while True:
            with mlflow_errors(self.settings):
                page = self._client.search_model_versions(condition, _PAGE, ["version_number DESC"], token)
            yield from page
            token = page.token
            if not token:
                return


def originals(versions: list[MlflowVersion]) -> list[MlflowVersion]:
    """Return which of a run's versions the run registered: one, or several of that name until its registration has ended."""
    own = [mv for mv in versions if not is_copy(mv) and version_of(mv) is not None]
    return [mv for mv in own if mv.name == own[0].name]


def is_copy(entry: MlflowVersion) -> bool:
    """Return whether MLflow copied it from another version."""
    return str(entry.source).startswith("models:")


def version_of(entry: MlflowVersion) -> ModelVersion | None:
    """Return the version if it is ours; None if it was registered without our tags, or somebody changed them."""
    tags = entry.tags
    if not {JOB, INFO, FILES} <= tags.keys():
        return None
    try:
        files = {name: StoredFile.model_validate(file) for name, file in json.loads(tags[FILES]).items()}
        return ModelVersion(
            name=entry.name,
            version=int(entry.version),
            created_at=entry.creation_timestamp / 1000,
            job_id=tags[JOB],
            aliases=list(entry.aliases or []),
            files=files,
            **json.loads(tags[INFO]),
        )
    except (ValueError, TypeError, AttributeError, ValidationError) as error:
        log.warning("%s/%s in MLflow has our tags, but changed: %s", entry.name, entry.version, error)
        return None


def folder_of(version: ModelVersion | None) -> str | None:
    """Return where a version's objects are, `s3://bucket/models/NAME/RUN/`; None if it names others than its run's own."""
    if version is None or "delta.safetensors" not in version.files:
        return None
    try:
        bucket, key = parse_uri(version.files["delta.safetensors"].uri)
    except TavError:
        return None
    folder = f"{key.rpartition('/')[0]}/"
    return f"s3://{bucket}/{folder}" if _FOLDER.fullmatch(folder) and folder.endswith(f"/{version.job_id}/") else None
