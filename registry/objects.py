"""Objects in S3. Every upload is verified before the call returns.

An upload is sent with its MD5, which every S3 server checks, and its SHA-256. A server that has checked the SHA-256 says so in
its response; where it does not (the embedded one), the object is read back and hashed.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any
from unicodedata import category

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    HTTPClientError,
    IncompleteReadError,
    ParamValidationError,
    ResponseStreamingError,
)

from registry.errors import CorruptVersion, InvalidReference, ObjectMissing, StorageRefused, StorageUnavailable
from registry.settings import RegistrySettings
from tav_client.schemas import StoredFile

log = logging.getLogger(__name__)

_CHUNK = 1 << 20
_SINGLE_PUT_LIMIT = 5 * 1024**3
_MISSING = {"404", "NoSuchKey", "NotFound", "NoSuchBucket"}
_REFUSALS = {"400", "InvalidArgument", "InvalidBucketName", "InvalidRequest", "InvalidURI", "KeyTooLongError"}
"""Codes by which S3 refuses a request as such; after HEAD there is only the status."""
_FORBIDDEN = {"401", "403", "AccessDenied", "AllAccessDisabled"}
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_LONGEST_KEY = 1024
_DOWNLOAD_ATTEMPTS = 3
_CONTENT_TYPES = {
    ".mp4": "video/mp4",
    ".gif": "image/gif",
    ".webm": "video/webm",
    ".png": "image/png",
    ".json": "application/json",
    ".txt": "text/plain; charset=utf-8",
    ".log": "text/plain; charset=utf-8",
}


@dataclass(frozen=True)
class ObjectInfo:
    """One object as the server describes it."""

    uri: str
    size: int
    modified: float
    """UNIX seconds."""


def parse_uri(uri: str) -> tuple[str, str]:
    """Return the bucket and key of `s3://bucket/key`.

    Raises:
        InvalidReference: it is no such address, or S3 servers and proxies read its key differently, because it has `.` or `..`
            as a part, or control characters.
    """
    scheme, _, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme != "s3" or not _BUCKET.fullmatch(bucket) or not key:
        raise InvalidReference(f"{uri!r} is not the address of an object; write s3://bucket/key.")
    _check_key(key)
    return bucket, key


def _check_key(key: str) -> None:
    if any(part in (".", "..") for part in key.split("/")) or any(category(letter) in ("Cc", "Cs") for letter in key):
        raise InvalidReference(f"{key[:80]!r} cannot be an object's key: leave out '.', '..' and control characters.")
    if len(key.encode()) > _LONGEST_KEY:
        raise InvalidReference(f"{key[:80]!r}… is longer than {_LONGEST_KEY} bytes, which no object's key is.")


class ObjectStore:
    """Objects of one S3 account; keys without `s3://` are in the settings' bucket.

    It may be shared among threads, and connects at the first call.
    """

    def __init__(self, settings: RegistrySettings) -> None:
        self.settings = settings
        self._client = self._connect(settings.s3_endpoint_url)

    @cached_property
    def _presigner(self) -> Any:
        return self._connect(self.settings.s3_public_endpoint_url or self.settings.s3_endpoint_url)

    def _connect(self, endpoint_url: str | None) -> Any:
        settings = self.settings
        secret = settings.s3_secret_access_key
        return boto3.client(
            "s3",
            endpoint_url=endpoint_url,
            region_name=settings.s3_region,
            aws_access_key_id=settings.s3_access_key_id,
            aws_secret_access_key=secret.get_secret_value() if secret else None,
            config=Config(
                signature_version="s3v4",
                connect_timeout=10,
                read_timeout=settings.s3_timeout_seconds,
                retries={"mode": "standard", "total_max_attempts": 4},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                s3={"addressing_style": "path"} if endpoint_url else {},
                max_pool_connections=16,
            ),
        )

    def uri(self, key: str) -> str:
        """Return the address of a key in the settings' bucket."""
        return f"s3://{self.settings.s3_bucket}/{key}"

    def ensure_bucket(self) -> None:
        """Create the bucket unless it is there."""
        bucket = self.settings.s3_bucket
        with self._errors(f"s3://{bucket}"):
            try:
                self._client.head_bucket(Bucket=bucket)
            except ClientError as e:
                if _code(e) not in _MISSING:
                    raise
                self._create_bucket(bucket)

    def _create_bucket(self, bucket: str) -> None:
        region = self.settings.s3_region
        elsewhere: dict[str, Any] = (
            {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        )
        try:
            self._client.create_bucket(Bucket=bucket, **elsewhere)
        except ClientError as e:
            if _code(e) not in {"BucketAlreadyExists", "BucketAlreadyOwnedByYou"}:
                raise
            self._client.head_bucket(Bucket=bucket)

    def put_file(self, path: str | Path, key: str, content_type: str | None = None) -> StoredFile:
        """Upload a file and verify it; `key` may also be a whole `s3://` address."""
        with open(path, "rb") as body:
            return self._put(body, key, content_type or _content_type(str(path)))

    def put_bytes(self, data: bytes, key: str, content_type: str | None = None) -> StoredFile:
        """Upload bytes and verify them; `key` may also be a whole `s3://` address."""
        return self._put(data, key, content_type or _content_type(key))

    def _put(self, body: IO[bytes] | bytes, key: str, content_type: str) -> StoredFile:
        bucket, key = self._locate(key)
        uri = f"s3://{bucket}/{key}"
        sha256, md5, size = _digests(body)
        if size > _SINGLE_PUT_LIMIT:
            raise InvalidReference(f"{uri} would be {size} bytes; S3 takes at most {_SINGLE_PUT_LIMIT} in one upload.")
        with self._errors(uri):
            response = self._client.put_object(
                Bucket=bucket,
                Key=key,
                Body=body,
                ContentType=content_type,
                ContentMD5=base64.b64encode(md5).decode(),
                ChecksumSHA256=base64.b64encode(sha256).decode(),
                Metadata={"sha256": sha256.hex()},
            )
        if response.get("ChecksumSHA256") != base64.b64encode(sha256).decode():
            self._verify(uri, sha256.hex(), size)
        return StoredFile(uri=uri, sha256=sha256.hex(), size=size)

    def _verify(self, uri: str, sha256: str, size: int) -> None:
        digest, count = hashlib.sha256(), 0
        for chunk in self._stream(uri):
            digest.update(chunk)
            count += len(chunk)
        if count != size or digest.hexdigest() != sha256:
            raise CorruptVersion(
                f"{uri} reads back as {count} bytes with sha256 {digest.hexdigest()}, not the {size} bytes with {sha256} "
                "that were sent. Check the storage behind the S3 endpoint, then try again."
            )

    def put_clip(self, path: str | Path) -> StoredFile:
        """Store a clip under its content's digest, `clips/<sha256>.mp4`; the same content is uploaded once."""
        with open(path, "rb") as file:
            sha256, _, size = _digests(file)
        uri = self.uri(f"clips/{sha256.hex()}.mp4")
        try:
            if self.stat(uri).size == size:
                return StoredFile(uri=uri, sha256=sha256.hex(), size=size)
        except ObjectMissing:
            pass
        return self.put_file(path, uri, content_type="video/mp4")

    def copy(self, source: str, target: str) -> None:
        """Copy an object inside the server; both may be keys or whole addresses."""
        (from_bucket, from_key), (to_bucket, to_key) = self._locate(source), self._locate(target)
        with self._errors(f"s3://{from_bucket}/{from_key}"):
            self._client.copy_object(Bucket=to_bucket, Key=to_key, CopySource={"Bucket": from_bucket, "Key": from_key})

    def get_file(self, uri: str, path: str | Path, sha256: str | None = None) -> Path:
        """Download to `path`, which appears only when it is complete and has the given digest."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
        try:
            digest = hashlib.sha256()
            with open(part, "wb") as file:
                for chunk in self._stream(uri):
                    digest.update(chunk)
                    file.write(chunk)
            _check_digest(uri, digest.hexdigest(), sha256)
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
        return path

    def get_bytes(self, uri: str, sha256: str | None = None) -> bytes:
        """Return an object's content, if it has the given digest."""
        data = b"".join(self._stream(uri))
        _check_digest(uri, hashlib.sha256(data).hexdigest(), sha256)
        return data

    def _stream(self, uri: str) -> Iterator[bytes]:
        """Yield an object's chunks; a connection that breaks is resumed where it broke."""
        bucket, key = self._locate(uri)
        done, total, etag, attempt = 0, None, None, 1
        while total is None or done < total:
            rest: dict[str, str] = {"Range": f"bytes={done}-", "IfMatch": etag} if done and etag else {}
            with self._errors(f"s3://{bucket}/{key}"):
                try:
                    response = self._client.get_object(Bucket=bucket, Key=key, **rest)
                    if total is None:
                        total, etag = response["ContentLength"], response.get("ETag")
                    for chunk in response["Body"].iter_chunks(_CHUNK):
                        done += len(chunk)
                        yield chunk
                    if done >= total:
                        return
                except (IncompleteReadError, ResponseStreamingError, HTTPClientError):
                    if attempt >= _DOWNLOAD_ATTEMPTS or (done and not etag):
                        raise
                attempt += 1
                if attempt > _DOWNLOAD_ATTEMPTS:
                    raise StorageUnavailable(f"s3://{bucket}/{key} breaks off after {done} of {total} bytes. Try again.")

    def stat(self, uri: str) -> ObjectInfo:
        """Return an object's size and age."""
        bucket, key = self._locate(uri)
        with self._errors(f"s3://{bucket}/{key}"):
            head = self._client.head_object(Bucket=bucket, Key=key)
        return ObjectInfo(f"s3://{bucket}/{key}", head["ContentLength"], head["LastModified"].timestamp())

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield every object whose key, or whole address, starts with `prefix`."""
        bucket, prefix = self._locate(prefix)
        with self._errors(f"s3://{bucket}/{prefix}"):
            for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
                for item in page.get("Contents", []):
                    uri = f"s3://{bucket}/{item['Key']}"
                    yield ObjectInfo(uri, item["Size"], item["LastModified"].timestamp())

    def delete(self, uri: str) -> None:
        """Remove an object; a missing one is no error."""
        bucket, key = self._locate(uri)
        with self._errors(f"s3://{bucket}/{key}"):
            self._client.delete_object(Bucket=bucket, Key=key)

    def delete_prefix(self, prefix: str) -> int:
        """Remove every object below `prefix`, which must end with `/`; return how many there were."""
        if not prefix.endswith("/"):
            raise InvalidReference(f"The prefix {prefix!r} must end with a slash, so that it names a folder.")
        uris = [item.uri for item in self.list(prefix)]
        for uri in uris:
            self.delete(uri)
        return len(uris)

    def presign_put(self, key: str, content_type: str, size: int, expires_seconds: int = 3600) -> str:
        """Return a URL that takes one upload by PUT without a key: of exactly `size` bytes, sent as `content_type`.

        It has the settings' public endpoint, if there is one.
        """
        bucket, key = self._locate(key)
        params = {"Bucket": bucket, "Key": key, "ContentType": content_type, "ContentLength": size}
        with self._errors(f"s3://{bucket}/{key}"):
            url: str = self._presigner.generate_presigned_url("put_object", Params=params, ExpiresIn=expires_seconds)
        return url

    def _locate(self, key: str) -> tuple[str, str]:
        if "://" in key:
            return parse_uri(key)
        _check_key(key)
        return self.settings.s3_bucket, key

    @contextmanager
    def _errors(self, uri: str) -> Iterator[None]:
        """Raise S3's exceptions as ours. Its message and address go to the log: callers of the service must not see them."""
        try:
            yield
        except ClientError as e:
            if _code(e) in _MISSING:
                raise ObjectMissing(f"{uri} is not in the bucket. It was deleted, or never uploaded.") from e
            self._log(uri, e)
            if _code(e) in _REFUSALS:
                raise StorageRefused(f"S3 does not take {uri}: correct the address.") from e
            if _code(e) in _FORBIDDEN and not uri.startswith(f"s3://{self.settings.s3_bucket}/"):
                raise StorageRefused(f"The service may not read {uri}: ask whoever owns the bucket to allow it.") from e
            raise StorageUnavailable(f"S3 refused {uri}. Check TAV_S3_* and the bucket's rights; the log says more.") from e
        except ParamValidationError as e:
            self._log(uri, e)
            raise StorageRefused(f"{uri} cannot be in S3: correct the address.") from e
        except BotoCoreError as e:
            self._log(uri, e)
            raise StorageUnavailable("S3 does not answer. Check that it runs, and TAV_S3_*; the log says more.") from e

    def _log(self, uri: str, error: Exception) -> None:
        log.warning("S3 at %s answered a request for %s: %s", self.settings.s3_endpoint_url or "Amazon", uri, error)


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _content_type(name: str) -> str:
    return _CONTENT_TYPES.get(Path(name).suffix.lower(), "application/octet-stream")


def _digests(body: IO[bytes] | bytes) -> tuple[bytes, bytes, int]:
    """Return SHA-256, MD5 (S3's transport check) and size; a file is left at its start."""
    sha256, md5, size = hashlib.sha256(), hashlib.md5(usedforsecurity=False), 0
    chunks = [body] if isinstance(body, bytes) else iter(lambda: body.read(_CHUNK), b"")
    for chunk in chunks:
        sha256.update(chunk)
        md5.update(chunk)
        size += len(chunk)
    if not isinstance(body, bytes):
        body.seek(0)
    return sha256.digest(), md5.digest(), size


def _check_digest(uri: str, digest: str, registered: str | None) -> None:
    if registered is not None and digest != registered:
        raise CorruptVersion(
            f"{uri} has sha256 {digest}, but {registered} was registered. It was changed after that; tune the clip again."
        )
