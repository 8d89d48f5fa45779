"""A caller's mistake is refused as one, an outage is told as one, and neither tells where MLflow and S3 are."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST

from registry.errors import InvalidReference, NotFound, ObjectMissing, StorageRefused, StorageUnavailable
from registry.jobs import JobStore
from registry.objects import ObjectStore, parse_uri
from registry.settings import RegistrySettings
from registry.tracking import Runs, connect, mlflow_errors
from registry.versions import VersionStore
from registry.videos import VideoStore
from tav_client.schemas import ClipInfo, TuningJob, TuningJobCreate

MISTAKES = (InvalidReference, NotFound, ObjectMissing, StorageRefused)

ODD = [
    "é",
    "\0",
    "a\0b",
    "\ud800",
    "a'b",
    "a\"'b",
    "a\\",
    "`",
    "../..",
    "a/b?c=1#d",
    "",
    " ",
    "%00",
    "\n",
    "x" * 3000,
    "🎈",
    "-1",
]


def token(content: object) -> str:
    """A page token as MLflow makes them."""
    return base64.b64encode(json.dumps(content).encode()).decode()


TOKENS = [
    *ODD[:-1],
    "bm90IGpzb24=",
    *(token({"offset": offset}) for offset in (-1, 0, 2**31, 10**30, 1e400, "x", None, [1], "1_0\0")),
    *map(token, ([], 1, "offset", {}, {"offset": {}})),
    base64.b64encode(b"[" * 1100).decode(),
]


@pytest.mark.parametrize("text", ODD)
def test_an_id_that_is_none_is_not_found(jobs: JobStore, videos: VideoStore, text: str) -> None:
    for read in (jobs.get, videos.get, jobs.request, jobs.logs, jobs.delete, videos.content):
        with pytest.raises(NotFound):
            read(text)
    for page in (jobs.list, videos.list):
        with pytest.raises(NotFound, match="Start the list again"):
            page(text)


@pytest.mark.parametrize("text", ODD)
def test_a_name_or_alias_that_is_none_is_not_found_or_refused(versions: VersionStore, text: str) -> None:
    with pytest.raises(NotFound):
        versions.get_model(text)
    for call in (
        lambda: versions.resolve(text),
        lambda: versions.resolve(f"ball@{text}"),
        lambda: versions.set_alias("ball", text, 1),
        lambda: versions.delete_alias("ball", text),
        lambda: versions.delete_model(text),
    ):
        with pytest.raises(MISTAKES):
            call()


@pytest.mark.parametrize("text", TOKENS)
def test_a_cursor_of_models_that_is_none_is_refused(versions: VersionStore, text: str) -> None:
    with pytest.raises(NotFound, match="Start the list again"):
        versions.list_models(after=text)


def test_a_cursor_behind_the_last_model_is_an_empty_page(versions: VersionStore) -> None:
    page = versions.list_models(after=token({"offset": 1_000_000}))
    assert (page.data, page.has_more) == ([], False)


@pytest.mark.parametrize("text", ODD)
def test_jobs_are_listed_by_any_label_or_it_is_refused(jobs: JobStore, text: str) -> None:
    for metadata in ({"key": text}, {text: "value"}):
        with suppress(InvalidReference):
            assert jobs.list(metadata=metadata).data == []


@pytest.mark.parametrize("field", [{"caption": "a ball\0"}, {"metadata": {"note": "\0"}}, {"validation_prompts": ["a\0b"]}])
def test_a_text_that_no_database_keeps_is_refused_and_leaves_nothing(
    jobs: JobStore, clip: ClipInfo, field: dict[str, Any]
) -> None:
    request, model = TuningJobCreate.model_validate({"caption": "a ball", **field}), f"ball-{uuid.uuid4().hex[:8]}"
    if "validation_prompts" in field:  # it is JSON in the run, which writes the character as an escape
        assert jobs.request(jobs.create(request, clip, "offline", model).id) == request
        return
    with pytest.raises(InvalidReference, match="NUL"):
        jobs.create(request, clip, "offline", model)
    assert jobs.list(model=model).data == []


def test_what_a_program_says_of_a_job_is_kept_without_what_no_database_keeps(
    jobs: JobStore, new_job: Callable[..., TuningJob]
) -> None:
    job = new_job(caption=None)
    jobs.set_caption(job.id, "a \0 ball \ud83c")
    assert jobs.get(job.id).caption == "a \ufffd ball ?"


URIS = [
    "s3://tav/../x",
    "s3://tav/a/../../x",
    "s3://tav/./x",
    "s3://tav/a\0b",
    "s3://tav/" + "x" * 1025,
    "s3://ta v/x",
    "s3://UPPER/x",
]


@pytest.mark.parametrize("uri", [*URIS, "s3://tav/\ud800", "s3://a/x", "s3://tav/a\nb", "s3://.tav/x", "s3://tav\0/x"])
def test_an_address_that_no_object_can_have_is_refused_before_s3_is_asked(objects: ObjectStore, uri: str) -> None:
    with pytest.raises(InvalidReference):
        parse_uri(uri)
    for call in (objects.stat, objects.get_bytes, objects.delete):
        with pytest.raises(InvalidReference):
            call(uri)


@pytest.mark.parametrize(
    "key", ["a b", "é/🎈", "a'b\"c", "%2e%2e/x", "a?b#c", "a//b", "..a/b..", "a+b", "\u3000", "a/", "a\\b", "x" * 600]
)
def test_an_odd_key_is_missing_or_refused_but_no_outage(objects: ObjectStore, key: str) -> None:
    for call in (objects.stat, objects.get_bytes):
        with pytest.raises(MISTAKES):
            call(f"s3://tav/nothing/{key}")


def test_another_bucket_that_is_missing_or_closed_is_no_outage(objects: ObjectStore) -> None:
    for call in (objects.stat, objects.get_bytes):
        with pytest.raises(MISTAKES):
            call("s3://somebody-elses/clip.mp4")


@pytest.mark.parametrize("change", [{"mlflow_tracking_uri": "http://127.0.0.1:9"}, {"s3_endpoint_url": "http://127.0.0.1:9"}])
def test_an_outage_is_told_without_addresses_which_the_log_has(
    registry_settings: RegistrySettings, clip: ClipInfo, caplog: pytest.LogCaptureFixture, change: dict[str, Any]
) -> None:
    broken = registry_settings.model_copy(update={**change, "mlflow_max_retries": 0})
    calls: list[Callable[[], object]] = [lambda: JobStore(broken).create(TuningJobCreate(caption="a"), clip, "offline", "ball")]
    if "s3_endpoint_url" in change:
        calls += [lambda: ObjectStore(broken).stat(clip.uri), lambda: ObjectStore(broken).get_bytes(clip.uri)]
    else:
        calls += [lambda: VersionStore(broken).resolve("ball"), lambda: VersionStore(broken).list_models()]
    for call in calls:
        with pytest.raises(StorageUnavailable, match=r"does not answer.*Check that it runs, and TAV_") as caught:
            call()
        assert "127.0.0.1" not in str(caught.value) and "://" not in str(caught.value)
    assert "http://127.0.0.1:9" in caplog.text


def test_an_experiment_that_was_deleted_is_told_as_such(registry_settings: RegistrySettings) -> None:
    settings = registry_settings.model_copy(update={"experiment": f"gone-{uuid.uuid4().hex[:8]}"})
    runs = Runs(settings, "tuning", "job")
    runs._client.delete_experiment(runs.experiment_id)
    with pytest.raises(StorageUnavailable, match=r"was deleted\. Restore it"):
        runs.create("ball", {})


def test_writes_that_meet_in_mlflow_are_repeatable_and_no_mistake_of_anybodys(
    versions: VersionStore, registry_settings: RegistrySettings
) -> None:
    client = connect(registry_settings)

    def write(name: str, value: int) -> type[Exception] | None:
        try:
            with mlflow_errors(registry_settings):
                client.set_registered_model_tag(name, "key", str(value))
        except (StorageRefused, StorageUnavailable) as error:
            return type(error)
        return None

    ends = set()
    with ThreadPoolExecutor(8) as pool:
        for _ in range(25):
            name = f"race-{uuid.uuid4().hex[:8]}"
            client.create_registered_model(name)
            ends |= set(pool.map(partial(write, name), range(8)))
            client.delete_registered_model(name)
    assert ends <= {None, StorageUnavailable}


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("(sqlite3.IntegrityError) UNIQUE constraint failed: registered_model_tags.key", StorageUnavailable),
        ("(psycopg.errors.UniqueViolation) duplicate key value violates unique constraint", StorageUnavailable),
        ("(psycopg.DataError) PostgreSQL text fields cannot contain NUL (0x00) bytes", StorageRefused),
    ],
)
def test_a_lost_race_is_told_from_a_text_that_the_database_refuses(
    registry_settings: RegistrySettings, text: str, kind: type[Exception]
) -> None:
    with pytest.raises(kind), mlflow_errors(registry_settings):
        raise MlflowException(text, BAD_REQUEST)
