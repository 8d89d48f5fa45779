"""Versions that were not tuned here: an MLflow run of kind `import` takes the place of a tuning job's."""

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
    """The model's name, as its tenant writes it."""
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
        """Register a folder's files as a version, which is sampled like any other. If that fails, nothing is left behind.

        Args:
            model: the model's name, as its tenant writes it; an existing model gets one more version.
            folder: the files, as `VersionStore.register` takes them.
            info: what the delta was made with.
            source: where it came from, for people.
            deviation: by part of the base, the largest difference of a frozen tensor from the checkpoint's.
            tenant: whose the model is.
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
            imported = Import(run.info.run_id, model, tenant)
            metrics = [(f"deviation.{part}", value, 0, run.info.start_time) for part, value in (deviation or {}).items()]
            self._runs.log(imported.id, metrics=metrics, params={"base": info.base, "caption": info.caption, "source": source})
            self._objects.put_file(folder / "config.json", artifact_uri(run, "config.json"))
            version = self._versions.register(imported, folder, info)
            self._runs.log(imported.id, tags={"tav.version": str(version.version)})
            self._runs.set_status(imported.id, "FINISHED")
        return version
