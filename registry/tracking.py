"""MLflow's runs, with our errors, stable paging, and tags of any length."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import Any, TypeVar

from mlflow import MlflowClient
from mlflow import environment_variables as mlflow_env
from mlflow.entities import Experiment, Metric, Param, Run, RunInfo, RunStatus, RunTag, ViewType
from mlflow.exceptions import MlflowException

from registry.errors import InvalidReference, NotFound, StorageRefused, StorageUnavailable
from registry.settings import RegistrySettings
from registry.tenants import DEFAULT_TENANT, TENANT
from tav.errors import TavError

KIND = "tav.kind"
"""Tag with the kind of a run: a tuning job's, an import's or a video's."""

OPEN = [f"attributes.status != '{status}'" for status in ("FINISHED", "FAILED", "KILLED")]
"""Conditions of a run that has not ended."""

REQUEST_ID = "tav.request_id"
"""Tag with the id of the call that created a run."""

log = logging.getLogger(__name__)

_RUN_ID = re.compile(r"[0-9a-f]{32}")
_REFUSALS = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST"}
"""Codes by which MLflow refuses a request as such. All others are about its state, its settings, or the network."""
_LOST_RACE = re.compile("IntegrityError|UniqueViolation")
"""In a refusal: two requests wrote the same new row, such as a tag, at once. The same request succeeds when it is repeated."""
_TAG_LIMIT = 8000
_PARAM_LIMIT = 6000
_METRICS_PER_CALL = 1000
_PAGE = 200
_CREATION_MS = 60_000

T = TypeVar("T")


def now_ms() -> int:
    """Return UNIX milliseconds, MLflow's time."""
    return int(time.time() * 1000)


def split_tag(key: str, text: str) -> dict[str, str]:
    """Split a text into tags `key`, `key.1`, `key.2`, … of MLflow's 8000 characters."""
    pieces = [text[i : i + _TAG_LIMIT] for i in range(0, len(text), _TAG_LIMIT)] or [""]
    return {key if i == 0 else f"{key}.{i}": piece for i, piece in enumerate(pieces)}


def join_tag(tags: Mapping[str, str], key: str) -> str:
    """Return the text that `split_tag` split."""
    pieces = [tags[key]]
    while (piece := tags.get(f"{key}.{len(pieces)}")) is not None:
        pieces.append(piece)
    return "".join(pieces)


_UNREAD = "tav.unread"


def unread_tags(unread: Mapping[str, str]) -> dict[str, str]:
    """Return the tags that say what the base does not read of a job's or video's texts."""
    return split_tag(_UNREAD, json.dumps(dict(unread), ensure_ascii=False))


def unread_of(tags: Mapping[str, str]) -> dict[str, str]:
    """Return what `unread_tags` stored; empty if it is not known."""
    return dict(json.loads(join_tag(tags, _UNREAD))) if _UNREAD in tags else {}


def key_digest(key: str) -> str:
    """Return a digest of a key of any length and alphabet, which MLflow can search for."""
    return hashlib.sha256(key.encode()).hexdigest()


def tag_equals(key: str, value: str) -> str:
    """Return a search condition."""
    return f"tags.`{key}` = {quoted(value)}"


def quoted(value: str) -> str:
    """Quote a value in a search condition.

    Raises:
        InvalidReference: MLflow's search has no way to quote it.
    """
    check_text(value)
    quote = '"' if "'" in value else "'"
    if quote in value or value.endswith("\\"):
        raise InvalidReference(
            f"{value[:80]!r} cannot be searched for: it holds both kinds of quotation marks, or ends in a backslash."
        )
    return f"{quote}{value}{quote}"


def check_text(*texts: str) -> None:
    """Refuse what no database stores: PostgreSQL has no NUL, UTF-8 no half of a surrogate pair.

    Raises:
        InvalidReference: a text has such a character.
    """
    for text in texts:
        if "\0" in text or (not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text)):
            raise InvalidReference(
                f"{text[:80]!r} holds a character that cannot be kept (NUL, or half of a pair): leave it out."
            )


def _storable(text: str) -> str:
    """Replace what no database stores in a program's output."""
    return text.encode(errors="replace").decode().replace("\0", "\ufffd")


@contextmanager
def mlflow_errors(
    settings: RegistrySettings, missing: TavError | None = None, *, invalid_is_missing: bool = False
) -> Iterator[None]:
    """Raise MLflow's exceptions as ours. Its message and address go to the log: callers of the service must not see them.

    Args:
        settings: say where MLflow is, for the log.
        missing: raised if MLflow has nothing of that name.
        invalid_is_missing: raise `missing` also if MLflow refuses the name as such.

    Raises:
        StorageRefused: MLflow refused the request as such.
        StorageUnavailable: it did not answer, or failed.
    """
    codes = {"RESOURCE_DOES_NOT_EXIST", *(["INVALID_PARAMETER_VALUE"] if invalid_is_missing else [])}
    try:
        yield
    except MlflowException as e:
        if missing is not None and e.error_code in codes:
            raise missing from e
        log.warning("MLflow at %s answered %s: %s", settings.mlflow_tracking_uri, e.error_code, str(e)[:2000])
        if e.error_code in _REFUSALS and not _LOST_RACE.search(str(e)):
            raise StorageRefused("MLflow does not take this: leave out what is unusual in its names and texts.") from e
        raise StorageUnavailable(
            "MLflow does not answer as it should. Check that it runs, and TAV_MLFLOW_TRACKING_URI; the log says more."
        ) from e


def connect(settings: RegistrySettings) -> MlflowClient:
    """Return a client that gives up after seconds, not MLflow's default of minutes, unless the operator set its variables."""
    for variable, value in (
        (mlflow_env.MLFLOW_HTTP_REQUEST_TIMEOUT, settings.mlflow_timeout_seconds),
        (mlflow_env.MLFLOW_HTTP_REQUEST_MAX_RETRIES, settings.mlflow_max_retries),
        (mlflow_env.MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR, 1),
        (mlflow_env.MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT, "true"),
    ):
        if not variable.is_set():
            variable.set(value)
    return MlflowClient(settings.mlflow_tracking_uri, settings.mlflow_tracking_uri)


class Runs:
    """The runs of one kind (`tuning`, `import` or `video`) in the settings' experiment."""

    def __init__(self, settings: RegistrySettings, kind: str, noun: str) -> None:
        self.settings = settings
        self.kind = kind
        self.noun = noun
        self._client = connect(settings)

    @cached_property
    def experiment_id(self) -> str:
        """The experiment, created at first use."""
        name = self.settings.experiment
        with mlflow_errors(self.settings):
            experiment = self._client.get_experiment_by_name(name)
            if experiment is None:
                try:
                    return str(self._client.create_experiment(name))
                except MlflowException as e:
                    if e.error_code != "RESOURCE_ALREADY_EXISTS":
                        raise
                    experiment = self._client.get_experiment_by_name(name)
        return self._active(experiment)

    def _active(self, experiment: Experiment | None) -> str:
        if experiment is None or experiment.lifecycle_stage != "active":
            raise StorageUnavailable(
                f"The MLflow experiment {self.settings.experiment!r} was deleted. Restore it in the MLflow UI, or set "
                "TAV_EXPERIMENT to another name."
            )
        return str(experiment.experiment_id)

    def create(self, name: str, tags: Mapping[str, str]) -> Run:
        """Create a run; MLflow makes it RUNNING. Texts that no database stores are refused."""
        check_text(name, *tags, *tags.values())
        try:
            with mlflow_errors(self.settings):
                return self._client.create_run(
                    self.experiment_id, start_time=now_ms(), tags={**tags, KIND: self.kind}, run_name=name
                )
        except StorageRefused:
            with mlflow_errors(self.settings):
                self._active(self._client.get_experiment_by_name(self.settings.experiment))
            raise

    @contextmanager
    def creating(self, name: str, tags: Mapping[str, str]) -> Iterator[Run]:
        """Yield a new run for the block to complete; it is removed if the block raises."""
        run = self.create(name, tags)
        try:
            yield run
        except Exception:
            with suppress(TavError):
                self.delete(run.info.run_id)
            raise

    def open(self, begun: str, since: float = 0.0) -> list[Run]:
        """Return all runs that have not ended, oldest first, except those that are being created.

        Args:
            begun: the tag that a run has once it is worked on. A run that is RUNNING without it is being created; after a
                minute its creation has failed, and it counts as waiting.
            since: only runs created after that, in UNIX seconds.
        """
        oldest_creation = now_ms() - _CREATION_MS
        return [
            run
            for run in self.search([*OPEN, f"attributes.start_time >= {int(since * 1000)}"], oldest_first=True)
            if run.info.status == "SCHEDULED" or begun in run.data.tags or run.info.start_time < oldest_creation
        ]

    def get(self, run_id: str) -> Run:
        """Return a run of this kind; a deleted one counts as missing."""
        missing = NotFound(self.noun, run_id)
        run = self._read(run_id, missing)
        if run.info.lifecycle_stage != "active":
            raise missing
        return run

    def _read(self, run_id: str, missing: NotFound) -> Run:
        """Return a run of this kind, deleted or not."""
        if not _RUN_ID.fullmatch(run_id):
            raise missing
        with mlflow_errors(self.settings, missing, invalid_is_missing=True):
            run = self._client.get_run(run_id)
        if run.data.tags.get(KIND) != self.kind:
            raise missing
        return run

    def set_status(self, run_id: str, status: str) -> RunInfo:
        """Set MLflow's status, with the time of the end if it is final. Return the run's info."""
        end = now_ms() if status in ("FINISHED", "FAILED", "KILLED") else None
        with self._writing(run_id):
            # The store itself: the client's `update_run` reads the whole run before it writes.
            store = self._client._tracking_client.store
            info: RunInfo = store.update_run_info(run_id, RunStatus.from_string(status), end, None)
        return info

    def end(self, run_id: str, status: str, tags: Mapping[str, str]) -> None:
        """Set a final status, and the tags that belong to it.

        This is done also for a run that was deleted in MLflow meanwhile, which may be restored.
        """
        try:
            self.log(run_id, tags=tags)
            self.set_status(run_id, status)
        except NotFound as missing:
            with mlflow_errors(self.settings, missing):
                self._client.restore_run(run_id)
            try:
                self.log(run_id, tags=tags)
                self.set_status(run_id, status)
            finally:
                self.delete(run_id)

    @contextmanager
    def _writing(self, run_id: str) -> Iterator[None]:
        """Raise `NotFound` if MLflow refuses the write because the run is deleted."""
        try:
            with mlflow_errors(self.settings, NotFound(self.noun, run_id)):
                yield
        except StorageRefused:
            self.get(run_id)
            raise

    def log(
        self,
        run_id: str,
        *,
        metrics: Iterable[tuple[str, float, int, int]] = (),
        tags: Mapping[str, str] | None = None,
        params: Mapping[str, object] | None = None,
    ) -> None:
        """Log metrics as (key, value, step, UNIX milliseconds), tags and params, in as few calls as MLflow's limits allow."""
        points = [Metric(key, float(value), int(ms), int(step)) for key, value, step, ms in metrics]
        run_tags = [RunTag(k, _storable(str(v))[:_TAG_LIMIT]) for k, v in (tags or {}).items()]
        run_params = [Param(k, _storable(str(v))[:_PARAM_LIMIT]) for k, v in (params or {}).items()]
        free = _METRICS_PER_CALL - len(run_tags) - len(run_params)
        with self._writing(run_id):
            self._client.log_batch(run_id, points[:free], run_params, run_tags)
            for start in range(free, len(points), _METRICS_PER_CALL):
                self._client.log_batch(run_id, points[start : start + _METRICS_PER_CALL])

    def delete(self, run_id: str) -> None:
        """Delete a run. MLflow keeps its row until its own garbage collection."""
        with mlflow_errors(self.settings, NotFound(self.noun, run_id)):
            self._client.delete_run(run_id)

    def deleted(self) -> list[str]:
        """Return the ids of runs that were deleted before they had ended."""
        return [run.info.run_id for run in self.search(OPEN, view=ViewType.DELETED_ONLY)]

    def search(
        self, conditions: Sequence[str] = (), *, oldest_first: bool = False, view: int = ViewType.ACTIVE_ONLY
    ) -> Iterator[Run]:
        """Yield all runs of this kind that meet the conditions, newest first by default."""
        query = " AND ".join([tag_equals(KIND, self.kind), *conditions])
        order = f"attributes.start_time {'ASC' if oldest_first else 'DESC'}"
        token: str | None = None
        while True:
            with mlflow_errors(self.settings):
                page = self._client.search_runs([self.experiment_id], query, view, _PAGE, [order], token)
            yield from page
            token = page.token
            if not token:
                return

    def page(
        self,
        make: Callable[[Run], T],
        after: str | None,
        limit: int,
        conditions: Sequence[str] = (),
        keep: Callable[[T], bool] = lambda _: True,
        oldest_first: bool = False,
        tenant: str | None = None,
    ) -> tuple[list[T], str | None]:
        """Return up to `limit` items, newest first by default, and the cursor of the next page.

        The cursor is the last item's id, so that items added meanwhile neither repeat nor hide any. MLflow orders runs of
        one millisecond by their ids. An item of another tenant is no cursor for `tenant`.
        """
        cursor = self._cursor(after, tenant)
        if cursor is not None:
            conditions = [*conditions, f"attributes.start_time {'>=' if oldest_first else '<='} {cursor[0]}"]
        items: list[T] = []
        last: str | None = None
        for run in self.search(conditions, oldest_first=oldest_first):
            if cursor is not None and run.info.start_time == cursor[0] and run.info.run_id <= cursor[1]:
                continue
            item = make(run)
            if not keep(item):
                continue
            if len(items) == limit:
                return items, last
            items.append(item)
            last = run.info.run_id
        return items, None

    def _cursor(self, after: str | None, tenant: str | None) -> tuple[int, str] | None:
        if after is None:
            return None
        missing = NotFound("cursor", after)
        run = self._read(after, missing)
        if tenant not in (None, tenant_of(run)):
            raise missing
        return run.info.start_time, run.info.run_id

    def url(self, run: Run) -> str:
        """Return the run's page in the MLflow UI."""
        return self.settings.run_url(run.info.experiment_id, run.info.run_id)


def tenant_of(run: Run) -> str:
    """Return whose run it is."""
    return str(run.data.tags.get(TENANT, DEFAULT_TENANT))


def artifact_uri(run: Run, name: str) -> str:
    """Return the address of an artifact of a run; `name` is its path in the UI, never outside the run's folder."""
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"{name!r} is not the name of an artifact.")
    return f"{str(run.info.artifact_uri).rstrip('/')}/{name}"


def seconds(ms: Any) -> float | None:
    """Return MLflow's milliseconds as UNIX seconds."""
    return None if not ms else float(ms) / 1000
