"""Migration of models and videos from before they had owners, once, before a service starts on them.

They were common to all tenants; only a job had a tenant. So a version becomes its job's tenant's, and a video that of the job
that made its version. Numbers, aliases and objects stay as they are.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion as MlflowVersion
from mlflow.exceptions import MlflowException

from registry.entries import INFO, JOB
from registry.errors import InvalidReference
from registry.settings import RegistrySettings
from registry.tenants import DEFAULT_TENANT, TENANT, registered
from registry.tracking import KIND, Runs, connect, mlflow_errors, quoted

log = logging.getLogger(__name__)

_DONE = "tav.tenants"
"""Tag of an experiment whose models and videos have owners."""

_KINDS = {"tuning": "job", "import": "import", "video": "video"}
_THREADS = 8
_PLAIN = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
"""Names without an owner that a service can have given; it does not see models that others name differently."""
_COPY = re.compile(r"models:/([^/]+)/([0-9]+)")


def give_owners(settings: RegistrySettings) -> None:
    """Give models and videos their owners. A call that fails can be repeated; nothing else may write meanwhile.

    Raises:
        StorageUnavailable: MLflow does not answer.
    """
    _Migration(settings).run()


class _Migration:
    def __init__(self, settings: RegistrySettings) -> None:
        self._settings = settings
        self._client = connect(settings)
        self._runs = {kind: Runs(settings, kind, noun) for kind, noun in _KINDS.items()}
        self._owners: dict[str, str] = {}

    def run(self) -> None:
        experiment = self._runs["tuning"].experiment_id
        with mlflow_errors(self._settings):
            if self._client.get_experiment(experiment).tags.get(_DONE) == "true":
                return
            self._own_runs()
            self._own_models()
            self._client.set_experiment_tag(experiment, _DONE, "true")

    def _own_runs(self) -> None:
        """Give runs their owners, jobs first: a video's owner is its job's."""
        for kind in _KINDS:
            without = [run for run in self._runs[kind].search() if TENANT not in run.data.tags]
            if without:
                log.info("%d runs of kind %s get their tenant", len(without), kind)
            with ThreadPoolExecutor(_THREADS, "owners") as threads:
                list(threads.map(self._own_run, without))

    def _own_run(self, run: Run) -> None:
        tags = {TENANT: DEFAULT_TENANT}
        if run.data.tags[KIND] == "video":
            tags[TENANT] = tenant = self._owner_of_run(run.data.tags.get("mlflow.parentRunId", ""))
            tags |= {
                name: registered(run.data.tags[name], tenant)
                for name in ("tav.model", "tav.model_version")
                if name in run.data.tags
            }
        self._runs[run.data.tags[KIND]].log(run.info.run_id, tags=tags)

    def _owner_of_run(self, run_id: str) -> str:
        """Return the owner of a job or import, also of a deleted one."""
        if run_id not in self._owners:
            try:
                self._owners[run_id] = self._client.get_run(run_id).data.tags.get(TENANT, DEFAULT_TENANT)
            except MlflowException as error:
                if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                    raise
                self._owners[run_id] = DEFAULT_TENANT
        return self._owners[run_id]

    def _own_models(self) -> None:
        """Rename a model whose versions are all of one tenant; move the versions of others one by one, copies last."""
        mixed = []
        for name in filter(_PLAIN.fullmatch, self._names()):
            versions = list(self._versions(name))
            owners = {self._owner(version) for version in versions}
            if owners <= {DEFAULT_TENANT}:
                continue
            target = registered(name, owners.pop()) if len(owners) == 1 else ""
            if target and not self._exists(target):
                log.info("model %s becomes %s", name, target)
                self._client.rename_registered_model(name, target)
            else:
                mixed.append(name)
        for copies in (False, True):
            for name in mixed:
                self._move_versions(name, copies)

    def _move_versions(self, name: str, copies: bool) -> None:
        aliases = self._client.get_registered_model(name).aliases
        for version in self._versions(name):
            if self._owner(version) == DEFAULT_TENANT or bool(_COPY.match(version.source)) is not copies:
                continue
            target = registered(name, self._owner(version))
            log.info("version %s/%s becomes %s/%s", name, version.version, target, version.version)
            if not self._exists(target):
                self._client.create_registered_model(target)
            self._create(target, version)
            for alias, number in aliases.items():
                if str(number) == str(version.version):
                    self._client.set_registered_model_alias(target, alias, version.version)
            self._client.delete_model_version(name, version.version)  # and the aliases that point at it
        if copies and not list(self._versions(name)):
            self._client.delete_registered_model(name)

    def _create(self, target: str, version: MlflowVersion) -> None:
        """Create the same version under another name, with its number: those before it are created and deleted.

        It becomes visible as ours with the last tag.
        """
        number, present = int(version.version), {int(each.version): each for each in self._versions(target)}
        while not present or max(present) < number:
            empty = self._empty(target, version)
            present[int(empty.version)] = empty
            if int(empty.version) < number:
                self._client.delete_model_version(target, empty.version)
        if number not in present or present[number].tags.get(JOB, version.tags[JOB]) != version.tags[JOB]:
            raise InvalidReference(
                f"Model {target} in MLflow has had a version {number} already, as which {version.name}/{number} shall go on: "
                "rename one of the two models in MLflow, then start again."
            )
        for key in sorted(version.tags, key=INFO.__eq__):
            self._client.set_model_version_tag(target, str(number), key, version.tags[key])

    def _empty(self, target: str, version: MlflowVersion) -> MlflowVersion:
        source = version.source
        if copy := _COPY.match(source):
            original = registered(copy[1], self._owner(version))
            source = f"models:/{original}/{copy[2]}"
            if not [each for each in self._versions(original) if each.version == copy[2]]:
                source = self._client.get_model_version_download_uri(version.name, version.version)
        return self._client.create_model_version(
            target, source, version.run_id, description=version.description, await_creation_for=0
        )

    def _owner(self, version: MlflowVersion) -> str:
        return self._owner_of_run(version.tags[JOB]) if JOB in version.tags else DEFAULT_TENANT

    def _names(self) -> list[str]:
        names: list[str] = []
        token = None
        while True:
            page = self._client.search_registered_models(max_results=1000, page_token=token)
            names += [entry.name for entry in page]
            token = page.token
            if not token:
                return names

    def _versions(self, name: str) -> Iterator[MlflowVersion]:
        """Yield a model's versions, oldest first."""
        token = None
        while True:
            page = self._client.search_model_versions(f"name = {quoted(name)}", 1000, ["version_number ASC"], token)
            yield from page
            token = page.token
            if not token:
                return

    def _exists(self, name: str) -> bool:
        return bool(self._client.search_registered_models(f"name = {quoted(name)}", 1))
