"""What our code and MLflow's ask of S3 is what deploy/iam/s3.json allows, neither more nor less."""

from __future__ import annotations

import fnmatch
import json
import re
import uuid
from pathlib import Path
from typing import Any

import botocore.client
import pytest
from mlflow import MlflowClient
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from registry.jobs import JobStore
from registry.objects import ObjectStore
from registry.registration import VersionInfo
from registry.removal import Removal
from registry.settings import RegistrySettings
from registry.versions import VersionStore
from registry.videos import VideoStore
from services.api.keys import KeyFile
from services.api.routes.uploads import PREFIX
from services.tuning.tuner.checkpoints import CheckpointStore
from tav.memory import MemorySetting
from tav_client.schemas import ClipInfo, TuningJobCreate, VideoCreate

ROOT = Path(__file__).parents[2]
POLICY = json.loads((ROOT / "deploy" / "iam" / "s3.json").read_text().replace("${s3_bucket}", "BUCKET"))
NEEDS = {
    "HeadBucket": "s3:ListBucket",
    "ListObjectsV2": "s3:ListBucket",
    "HeadObject": "s3:GetObject",
    "GetObject": "s3:GetObject",
    "PutObject": "s3:PutObject",
    "DeleteObject": "s3:DeleteObject",
    "DeleteObjects": "s3:DeleteObject",
    "CreateMultipartUpload": "s3:PutObject",
    "UploadPart": "s3:PutObject",
    "CompleteMultipartUpload": "s3:PutObject",
}
"""The right that Amazon asks for, by operation. Copying needs two, see `Asked`."""

Need = tuple[str, str]
"""A right, and the key or (for the bucket itself) nothing that it is asked for."""


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> set[tuple[str, Need]]:
    """Every operation on S3 of this process while the test lasts, with the rights that it needs."""
    seen: set[tuple[str, Need]] = set()
    call = botocore.client.BaseClient._make_api_call

    def recorded(self: Any, operation: str, parameters: dict[str, Any]) -> Any:
        if self.meta.service_model.service_name == "s3":
            if operation == "CopyObject":
                seen.add((operation, ("s3:GetObject", parameters["CopySource"]["Key"])))
                seen.add((operation, ("s3:PutObject", parameters["Key"])))
            elif operation == "DeleteObjects":
                seen.update((operation, (NEEDS[operation], item["Key"])) for item in parameters["Delete"]["Objects"])
            else:
                seen.add((operation, (NEEDS[operation], parameters.get("Key", ""))))
        return call(self, operation, parameters)

    monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", recorded)
    return seen


def allowed(right: str, key: str) -> bool:
    resource = "arn:aws:s3:::BUCKET" + (f"/{key}" if key else "")
    return any(right in _list(each["Action"]) and _matches(resource, each["Resource"]) for each in POLICY["Statement"])


def _list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def _matches(resource: str, patterns: str | list[str]) -> bool:
    return any(fnmatch.fnmatchcase(resource, pattern) for pattern in _list(patterns))


def live(settings: RegistrySettings, folder: Path) -> None:
    """All that the services do with S3, from a clip's upload to the last deletion."""
    objects, jobs, versions, videos = ObjectStore(settings), JobStore(settings), VersionStore(settings), VideoStore(settings)
    objects.ensure_bucket()
    source = folder / "source.mp4"
    source.write_bytes(uuid.uuid4().bytes)
    upload = f"{PREFIX}{uuid.uuid4().hex}"
    objects.put_file(source, upload)  # as whoever holds the presigned address does, with our rights
    objects.stat(objects.uri(upload))
    objects.get_file(objects.uri(upload), folder / "fetched.mp4")
    objects.delete(objects.uri(upload))
    stored = objects.put_clip(source)
    clip = ClipInfo(uri=stored.uri, sha256=stored.sha256, width=64, height=64, num_frames=12, fps=8.0)
    model = f"rights-{uuid.uuid4().hex[:8]}"
    job = jobs.create(TuningJobCreate(caption="a ball"), clip, "offline", model)
    jobs.start(job.id, 1)
    resume = CheckpointStore(objects, job.id)
    resume.save_setting(MemorySetting())
    resume.load_setting()
    resume.load()
    resume.delete()
    jobs.log_bytes(job.id, b"line\n", "logs/attempt-001.txt")
    jobs.logs(job.id)
    files = folder / "version"
    files.mkdir()
    for name in ("delta.safetensors", "latents.safetensors", "config.json"):
        (files / name).write_bytes(b"{}")
    info = VersionInfo(base="offline", base_fingerprint="f" * 64, caption="a ball", num_frames=8, size=(64, 64))
    version = versions.register(job, files, info)
    jobs.succeed(job.id, version.version)
    versions.fetch(version, folder / "used")
    video = videos.create(VideoCreate(model=model, prompt="a blue ball"), version)
    videos.complete(video.id, b"bytes", 1.0, (64, 64))
    videos.content(video.id)
    # what MLflow's server does to show a run and for `mlflow gc`, and its clients for a user's own notes
    client = MlflowClient(settings.mlflow_tracking_uri)
    client.log_text(job.id, "mine", "notes/mine.txt")
    client.list_artifacts(job.id, "notes")
    client.download_artifacts(job.id, "notes/mine.txt", str(folder))
    get_artifact_repository(client.get_run(job.id).info.artifact_uri).delete_artifacts("notes")
    Removal(settings, objects).job(jobs.get(job.id))
    place = f"s3://{settings.s3_bucket}/operator/api-keys.json"
    KeyFile(place, settings).read()


def test_the_policy_allows_what_is_asked_of_s3_and_nothing_that_is_never_asked(
    requests: set[tuple[str, Need]], registry_settings: RegistrySettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = registry_settings
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", settings.s3_endpoint_url or "")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", settings.s3_access_key_id or "")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", settings.s3_secret_access_key.get_secret_value())  # type: ignore[union-attr]
    live(settings, tmp_path)
    refused = {(operation, need) for operation, need in requests if not allowed(*need)}
    assert not refused
    rights = {right for each in POLICY["Statement"] for right in _list(each["Action"])}
    assert rights == {right for _, (right, _) in requests}
    places = {place for each in POLICY["Statement"] for place in _list(each["Resource"])}
    used = {f"arn:aws:s3:::BUCKET/{key.partition('/')[0]}/*" if key else "arn:aws:s3:::BUCKET" for _, (_, key) in requests}
    assert used == places


def test_every_call_on_s3_in_our_code_is_one_that_was_tried(requests: set[tuple[str, Need]]) -> None:
    named = set(re.findall(r"_client\.([a-z_0-9]+)\(", (ROOT / "registry" / "objects.py").read_text()))
    named = {"".join(word.capitalize() for word in name.split("_")) for name in named}
    assert named - {"CreateBucket", "GetPaginator", "CopyObject"} <= NEEDS.keys()  # a bucket is made on one machine alone
    others = [path for part in ("registry", "services", "tav") for path in (ROOT / part).rglob("*.py")]
    assert [path.name for path in others if "boto3" in path.read_text() and "import boto3" in path.read_text()] == [
        "objects.py"
    ]


def test_nobody_but_the_operator_may_write_the_keys() -> None:
    assert allowed("s3:GetObject", "operator/api-keys.json")
    assert not allowed("s3:PutObject", "operator/api-keys.json") and not allowed("s3:DeleteObject", "operator/api-keys.json")
    assert not allowed("s3:GetObject", "somebody-elses/object")
