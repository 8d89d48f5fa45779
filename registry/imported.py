"""A version that was not tuned here: an MLflow run of its own kind (`import`) stands where a tuning job's would."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from registry.objects import ObjectStore
from registry.registration import VersionInfo
from registry.settings import RegistrySettings
from registry.tenants import DEFAULT_TENANT, TENANT
from registry.tracking import Runs, artifact_uri
from registry.versions import VersionStore
from tav_client.schemas import ModelVersion


@dataclass(frozen=True)
class Import:
    """One import."""

    id: str
    """The MLflow run's, which videos of the version are nested under."""
    model: str
    """What its tenant calls it."""
    tenant: str = DEFAULT_TENANT
    """Whose it is."""


class ImportStore:
    """Imports. Methods block."""

    def __init__(self, settings: RegistrySettings, objects: ObjectStore | None = None) -> None:
        self._runs = Runs(settings, "import", "import")
        self._objects = objects or ObjectStore(settings)
        self._versions = VersionStore(settings, self._objects)

    def register(
        self,
        model: str,
        folder: Path,
        info: VersionInfo,
        source: str,
        deviation: dict[str, float] | None = None,
        tenant: str = DEFAULT_TENANT,
    ) -> ModelVersion:
        """Make a version of a folder's files, samplable like any other. Nothing is left behind when that fails.

        Args:
            model: What its tenant calls the model; a version is added where it exists.
            folder: What `VersionStore.register` takes.
            info: What the delta was made with.
            source: Where it came from, for people.
            deviation: By part of the base, the largest difference of a frozen tensor from the checkpoint's.
            tenant: Whose the model is.
        """
        tags = {
            "tav.model": model,
            TENANT: tenant,
            "tav.base": info.base,
            "tav.caption": info.caption,
            "tav.media.source": source,
            "mlflow.note.content": f"{info.caption} (imported from {source})",
            "mlflow.source.name": "tav",
        }
        with self._runs.creating(model, tags) as run:
            made = Import(run.info.run_id, model, tenant)
            metrics = [(f"deviation.{part}", value, 0, run.info.start_time) for part, value in (deviation or {}).items()]
            self._runs.log(made.id, metrics=metrics, params={"base": info.base, "caption": info.caption, "source": source})
            self._objects.put_file(folder / "config.json", artifact_uri(run, "config.json"))
            version = self._versions.register(made, folder, info)
            self._runs.log(made.id, tags={"tav.version": str(version.version)})
            self._runs.set_status(made.id, "FINISHED")
        return version
