"""API keys, and the file of their digests, on disk or in S3. The keys themselves are not stored.

A key is 256 random bits, so a plain SHA-256 hides it: a salt or a slow digest protects secrets that can be guessed.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from registry.errors import ObjectMissing
from registry.objects import ObjectStore
from registry.settings import RegistrySettings
from registry.tenants import TenantName
from tav.errors import InvalidConfig

_KEY = re.compile(r"tav_([0-9a-f]{8})_[A-Za-z0-9_-]{43}")
_DAY = 24 * 3600.0
_LONGEST_DAYS = 36_500


class KeyRecord(BaseModel):
    """What is stored of a key."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(pattern=r"^[0-9a-f]{8}$", description="The key's first part, by which it is shown and revoked.")
    tenant: TenantName = Field(description="Whose requests it makes.")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="Of the whole key.")
    created_at: float
    expires_at: float | None = None
    operator: bool = Field(False, description="Opens MLflow, where every tenant's runs are, and acts for any tenant.")
    note: str = ""

    def matches(self, key: str) -> bool:
        """Return whether the record is of this key."""
        return hmac.compare_digest(hashlib.sha256(key.encode()).hexdigest(), self.sha256)

    def valid(self, now: float) -> bool:
        """Return whether the key has not expired at `now`, in UNIX seconds."""
        return self.expires_at is None or now < self.expires_at


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    keys: list[KeyRecord] = Field(default_factory=list)


def make_key(tenant: str, days: float | None = None, operator: bool = False, note: str = "") -> tuple[str, KeyRecord]:
    """Create a key.

    Args:
        tenant: whose requests it makes.
        days: how long it is valid; None: until it is revoked.
        operator: whether it acts for any tenant and opens MLflow.
        note: free text.

    Returns:
        The key and its record.

    Raises:
        InvalidConfig: that is no tenant's name, or no number of days that a key could be valid for.
    """
    if days is not None and not 0 < days <= _LONGEST_DAYS:
        raise InvalidConfig(
            f"A key is not valid for {days:g} days: give a number above 0, up to {_LONGEST_DAYS}, or leave it out for a key "
            "that is valid until it is revoked."
        )
    key_id, now = secrets.token_hex(4), time.time()
    key = f"tav_{key_id}_{secrets.token_urlsafe(32)}"
    try:
        record = KeyRecord(
            id=key_id,
            tenant=tenant,
            sha256=hashlib.sha256(key.encode()).hexdigest(),
            created_at=now,
            expires_at=None if days is None else now + days * _DAY,
            operator=operator,
            note=note,
        )
    except ValidationError as error:
        raise InvalidConfig(
            f"{tenant!r} is no tenant's name: it has 1 to 64 of a-z 0-9 . _ -, letters or digits outside"
        ) from error
    return key, record


def find_key(keys: Mapping[str, KeyRecord], key: str) -> KeyRecord | None:
    """Return the record of a known and valid key."""
    record = _known(keys, key)
    return record if record is not None and record.valid(time.time()) else None


def why_refused(keys: Mapping[str, KeyRecord], key: str) -> str:
    """Return a sentence for the sender of a key that `find_key` does not find.

    Only who has the whole key learns that it has expired.
    """
    record = _known(keys, key)
    if record is not None and record.expires_at is not None:
        day = datetime.fromtimestamp(record.expires_at, UTC).strftime("%Y-%m-%d %H:%M UTC")
        return f"This key expired on {day}: ask the operator for a new one."
    return "This key is not known here: it was mistyped or revoked, or is another service's. Ask the operator for a new one."


def _known(keys: Mapping[str, KeyRecord], key: str) -> KeyRecord | None:
    parts = _KEY.fullmatch(key)
    record = keys.get(parts[1]) if parts else None
    return record if record is not None and record.matches(key) else None


class KeyFile:
    """The file of all keys' records.

    Args:
        place: a path, or `s3://bucket/key`.
        settings: name the S3 server.
    """

    def __init__(self, place: str, settings: RegistrySettings) -> None:
        self.place = place
        self._objects = ObjectStore(settings) if place.startswith("s3://") else None

    def read(self) -> dict[str, KeyRecord]:
        """Return the records by id, oldest first; none where there is no file yet.

        Raises:
            InvalidConfig: the file is something else.
            StorageUnavailable: S3 does not answer.
        """
        try:
            text = self._objects.get_bytes(self.place) if self._objects else Path(self.place).read_bytes()
            return {record.id: record for record in _File.model_validate_json(text).keys}
        except (FileNotFoundError, ObjectMissing):
            return {}
        except (OSError, ValidationError) as error:
            raise InvalidConfig(
                f"{self.place} is no file of API keys that can be read: make one with `tav keys create`"
            ) from error

    def write(self, keys: Mapping[str, KeyRecord]) -> None:
        """Replace the file atomically.

        Raises:
            StorageUnavailable: S3 does not answer.
        """
        text = _File(keys=list(keys.values())).model_dump_json(indent=2).encode() + b"\n"
        if self._objects:
            self._objects.put_bytes(text, self.place, "application/json")
            return
        path = Path(self.place)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
        try:
            with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(text)
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
