"""Every upload is verified; every download is what was asked for, or nothing."""

from __future__ import annotations

import hashlib
import os
import uuid
from pathlib import Path

import pytest

from registry.errors import CorruptVersion, InvalidReference, ObjectMissing, StorageUnavailable
from registry.objects import ObjectStore, parse_uri
from services.platform import Stack


def test_a_file_comes_back_as_it_was(objects: ObjectStore, tmp_path: Path) -> None:
    data = os.urandom(3_000_001)
    (tmp_path / "in").write_bytes(data)
    stored = objects.put_file(tmp_path / "in", "some/where.bin")
    assert (stored.uri, stored.size) == ("s3://tav/some/where.bin", len(data))
    assert stored.sha256 == hashlib.sha256(data).hexdigest()
    assert objects.get_file(stored.uri, tmp_path / "a" / "out", stored.sha256).read_bytes() == data


def test_an_empty_object_is_an_object(objects: ObjectStore) -> None:
    assert objects.get_bytes(objects.put_bytes(b"", "empty").uri) == b""


def test_a_clip_is_stored_once_per_content(objects: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = os.urandom(2000)
    (tmp_path / "a.mp4").write_bytes(content)
    (tmp_path / "b.mov").write_bytes(content)
    first = objects.put_clip(tmp_path / "a.mp4")
    assert first.uri == f"s3://tav/clips/{hashlib.sha256(content).hexdigest()}.mp4"
    monkeypatch.setattr(objects, "put_file", lambda *_, **__: pytest.fail("uploaded again"))
    assert objects.put_clip(tmp_path / "b.mov") == first


def test_an_upload_that_the_storage_garbles_is_refused(objects: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "_stream", lambda _: iter([b"something else"]))
    with pytest.raises(CorruptVersion, match="reads back as 14 bytes"):
        objects.put_bytes(b"what was sent", "garbled")


def test_a_changed_object_is_refused_and_leaves_no_file(objects: ObjectStore, tmp_path: Path) -> None:
    stored = objects.put_bytes(b"first", "changing")
    objects.put_bytes(b"other", "changing")
    with pytest.raises(CorruptVersion, match="was changed after that"):
        objects.get_file(stored.uri, tmp_path / "out", stored.sha256)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_object_is_said_to_be_missing(objects: ObjectStore, tmp_path: Path) -> None:
    for call in (objects.get_bytes, objects.stat, lambda uri: objects.get_file(uri, tmp_path / "x")):
        with pytest.raises(ObjectMissing, match=r"s3://tav/nowhere is not in the bucket"):
            call("s3://tav/nowhere")
    objects.delete("s3://tav/nowhere")


def test_a_prefix_is_listed_and_removed(objects: ObjectStore) -> None:
    prefix = f"folder-{uuid.uuid4().hex}/"
    for name in ("a", "b/c"):
        objects.put_bytes(name.encode(), prefix + name)
    assert sorted(item.uri for item in objects.list(prefix)) == [f"s3://tav/{prefix}a", f"s3://tav/{prefix}b/c"]
    assert objects.delete_prefix(prefix) == 2
    assert list(objects.list(prefix)) == []
    with pytest.raises(InvalidReference, match="must end with a slash"):
        objects.delete_prefix("clips")


def test_the_bucket_is_made_once(objects: ObjectStore) -> None:
    objects.ensure_bucket()
    objects.ensure_bucket()


@pytest.mark.parametrize("uri", ["http://x/y", "s3://bucket", "s3://bucket/", "s3:///key", "plain"])
def test_only_an_objects_address_is_taken(uri: str) -> None:
    with pytest.raises(InvalidReference, match="write s3://bucket/key"):
        parse_uri(uri)


def test_wrong_keys_are_said_to_be_refused(s3_server: Stack) -> None:
    wrong = s3_server.settings().model_copy(update={"s3_access_key_id": "somebody"})
    with pytest.raises(StorageUnavailable, match=r"refused .*Check TAV_S3"):
        ObjectStore(wrong).get_bytes("s3://tav/x")


def test_an_s3_that_is_down_is_said_to_be(s3_server: Stack) -> None:
    nowhere = s3_server.settings().model_copy(update={"s3_endpoint_url": "http://127.0.0.1:9"})
    with pytest.raises(StorageUnavailable, match=r"does not answer\. Check that it runs"):
        ObjectStore(nowhere).stat("s3://tav/x")
