"""Settings pass whole from one process to another."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from services.settings import Settings


def test_settings_survive_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    given = Settings(
        s3_secret_access_key=SecretStr('with "quotes" and $'),
        api_keys_file="s3://tav/operator/api-keys.json",
        tls_certfile=Path("/etc/tav/tls.crt"),
        work_dir=Path("/tmp/some where"),
        zero_stage=2,
        precision="bf16",
        allowed_clip_buckets=["clips"],
    )
    for name, value in given.environment().items():
        monkeypatch.setenv(name, value)
    assert Settings() == given
