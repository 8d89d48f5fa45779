"""The whole service on one machine, started as users start it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from dotenv import dotenv_values

from registry.objects import ObjectStore
from registry.settings import RegistrySettings
from services.api.keys import KeyFile, make_key
from services.platform import PlatformSettings, Stack
from tav_client import TavClient
from tests.api.conftest import start_gateway  # noqa: F401 - a fixture
from tests.certificate import write_certificate

CLIP = Path(__file__).parents[2] / "examples" / "clips" / "red-ball-grass.mp4"


def platform(*words: str) -> str:
    command = [str(Path(sys.executable).with_name("tav")), "platform", *words]
    env = {**os.environ, "RAY_metrics_report_interval_ms": "5000"}  # or a test of metrics would wait longer
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=400, env=env)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stdout}{done.stderr}"
    return done.stdout


class Service:
    """One stack and how to reach it."""

    def __init__(self, data: Path, key: str) -> None:
        self.data, self.key = data, key
        self.where = ("--data-dir", str(data))

    def up(self) -> None:
        platform("up", *self.where, "--free-ports")
        env = dotenv_values(self.data / "stack.env")
        self.client = TavClient(env["TAV_URL"], api_key=self.key, timeout=300)
        self.mlflow = httpx.Client(base_url=str(env["MLFLOW_TRACKING_URI"]), timeout=60)

    @property
    def stack(self) -> Stack:
        """What the commands work on."""
        return Stack(PlatformSettings(data_dir=self.data))

    @property
    def objects(self) -> ObjectStore:
        """The stack's S3."""
        return ObjectStore(self.stack.settings())

    def artifact(self, run_id: str, path: str) -> bytes:
        """What the MLflow UI plays."""
        return self.mlflow.get("/get-artifact", params={"run_id": run_id, "path": path}).raise_for_status().content


@pytest.fixture(scope="package")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """It speaks HTTPS, and asks for a key."""
    folder = tmp_path_factory.mktemp("one")
    key, record = make_key("alice")
    keys, (certificate, secret) = folder / "api-keys.json", write_certificate(folder)
    KeyFile(str(keys), RegistrySettings()).write({record.id: record})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TAV_API_KEYS_FILE", str(keys))
        patch.setenv("TAV_TLS_CERTFILE", str(certificate))
        patch.setenv("TAV_TLS_KEYFILE", str(secret))
        patch.setenv("SSL_CERT_FILE", str(certificate))  # whom clients trust
        patch.setenv("TAV_API_KEY", key)
        made = Service(folder / "data", key)
        try:
            made.up()
            yield made
        finally:
            platform("down", *made.where)
