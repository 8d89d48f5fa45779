"""Ports and places of the one-machine stack."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from registry.settings import EnvironmentSettings

LOOPBACK = "127.0.0.1"
PORTS = (("s3", "s3_port"), ("mlflow", "mlflow_port"), ("ray", "ray_port"), ("services", "port"), ("services", "serve_port"))
"""Parts, and the fields of their ports."""


class PlatformSettings(EnvironmentSettings):
    """Ports and places, from `TAV_*` or options. A port of 0 means any free one; the next start takes the same if it can."""

    model_config = SettingsConfigDict(env_prefix="TAV_", frozen=True, extra="ignore")

    data_dir: Path = Field(Path(".data"), description="Holds all that the stack keeps: objects, database, logs.")
    host: str = Field(LOOPBACK, description="Where the gateway listens. The other parts always listen on loopback.")
    port: int = Field(8000, ge=0, le=65535, description="The gateway's port.")
    serve_port: int = Field(0, ge=0, le=65535, description="The port of Ray Serve's proxy, behind the gateway's.")
    mlflow_port: int = Field(5000, ge=0, le=65535, description="The MLflow server's port.")
    s3_port: int = Field(9000, ge=0, le=65535, description="The S3 server's port.")
    ray_port: int = Field(6379, ge=0, le=65535, description="The Ray head's port.")
    base: str | None = Field(None, description="Base to tune on and sample from; left out, the services' own default.")
    s3_bucket: str = Field("tav", min_length=3, max_length=63, description="The bucket made at the first start.")
    mlflow_database: SecretStr | None = Field(
        None, description="MLflow's database, as postgresql://…; left out, SQLite in the data directory."
    )
    ray_cpus: int | None = Field(None, ge=1, description="Processors that Ray may hand out; left out, all.")
    ray_object_store_bytes: int = Field(512 * 1024**2, ge=80 * 1024**2, description="Shared memory for Ray's objects.")
    ready_seconds: float = Field(180, gt=0, description="A part that is not ready by then has failed.")

    def with_offset(self, offset: int) -> PlatformSettings:
        """Move all ports, except those of 0, by `offset`, so that a second stack fits beside the first."""
        ports = {name: port + offset for name, port in self.ports().items() if port}
        return self.model_validate({**self.model_dump(), **ports})

    def with_free_ports(self) -> PlatformSettings:
        """Let every part have any free port."""
        return self.model_copy(update=dict.fromkeys(self.ports(), 0))

    def ports(self) -> dict[str, int]:
        """Return the configured ports by field."""
        return {field: getattr(self, field) for _, field in PORTS}

    @property
    def root(self) -> Path:
        """`data_dir`, absolute."""
        return self.data_dir.expanduser().resolve()
