"""The operator's settings: `TAV_CLUSTER_*` for the machines, the other `TAV_*` for the services (services/settings.py)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeVar

from dotenv import dotenv_values
from pydantic import Field, SecretStr, StringConstraints, field_validator
from pydantic_settings import SettingsConfigDict

from registry.settings import EnvironmentSettings
from services.api.exposure import check_exposure
from services.settings import Settings
from tav.errors import InvalidConfig, TavError

PREFIX = "TAV_CLUSTER_"
_NO_MLFLOW_URI = Settings.model_fields["mlflow_tracking_uri"].default

S = TypeVar("S", bound=EnvironmentSettings)
NonEmpty = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]


class ClusterError(TavError):
    """The settings, a cluster file or the head is not as it must be; the sentence says what to do."""

    code = "invalid_config"


class HeadSettings(EnvironmentSettings):
    """Settings that the head itself reads."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore", env_ignore_empty=True)

    mlflow_database: SecretStr | None = Field(
        None, description="Of the MLflow server on the head: postgresql://USER:PASSWORD@HOST/DATABASE."
    )
    mlflow_port: int = Field(5000, ge=1, le=65535, description="Of the MLflow server on the head.")
    state_dir: Path = Field(Path("~/tav-state"), description="Logs and pid files on the head.")


class ClusterSettings(HeadSettings):
    """Settings of every cloud."""

    name: str = Field("tav", pattern=r"^[a-z][a-z0-9-]{0,40}$", description="The cluster's; its machines are named after it.")
    image: str | None = Field(
        None, description="A pinned container image, made from deploy/Containerfile. None: plain machines, set up with pip."
    )
    shm_size: str = Field("8g", pattern=r"^[0-9]+[mg]$", description="Shared memory of the container, for Ray's objects.")
    max_gpu_nodes: int = Field(4, ge=1, description="GPU machines at a time.")
    idle_minutes: int = Field(10, ge=1, description="A machine without work is given back after this.")
    ray_token: SecretStr = Field(min_length=32, description="What Ray asks of whoever connects: `openssl rand -hex 32`.")
    redis: str | None = Field(
        None, description="HOST:PORT of a Redis that keeps Ray's state over a restart of the head. None: the head keeps it."
    )
    redis_password: SecretStr | None = Field(None, description="Of that Redis.")

    @field_validator("image")
    @classmethod
    def _pinned(cls, image: str | None) -> str | None:
        tag = (image or ":x").rpartition("/")[2].partition(":")[2]
        if tag in ("", "latest"):
            raise ValueError(
                f"may not be {image}, which may change under running machines; name a version or, better, NAME@sha256:DIGEST"
            )
        return image


class AwsSettings(ClusterSettings):
    """Settings of a cluster on Amazon."""

    aws_region: NonEmpty = Field(description="Where the machines run, as us-east-1.")
    aws_zones: str | None = Field(None, description="Its zones to use, comma-separated. None: every zone.")
    aws_ami: str = Field(
        pattern=r"^ami-[0-9a-f]+$", description="Machine image with NVIDIA's driver, and with docker if `image` is set."
    )
    aws_head_profile: NonEmpty = Field(
        description="Instance profile of the head: of its role, the policies deploy/iam/head.json and s3.json."
    )
    aws_gpu_profile: NonEmpty = Field(
        description="Of GPU machines, and the name of its role: the policy deploy/iam/s3.json alone."
    )


class GcpSettings(ClusterSettings):
    """Settings of a cluster on Google, whose buckets are reached through their S3 interface, with an HMAC key."""

    gcp_project: NonEmpty = Field(description="The project's id.")
    gcp_region: NonEmpty = Field(description="Where the machines run, as us-central1.")
    gcp_zone: NonEmpty = Field(description="Its zone, as us-central1-a.")
    gcp_image: NonEmpty = Field(
        description="Machine image with NVIDIA's driver, and with docker if `image` is set: projects/…/global/images/…."
    )
    gcp_head_account: NonEmpty = Field(description="Service account of the head: compute.admin and iam.serviceAccountUser.")
    gcp_gpu_account: NonEmpty = Field(description="Service account of GPU machines; it needs no role.")


class KubernetesSettings(ClusterSettings):
    """Settings of a cluster on any Kubernetes with the KubeRay operator."""

    image: NonEmpty = Field(description="A pinned container image, made from deploy/Containerfile.")
    k8s_namespace: str = Field("tav", pattern=r"^[a-z0-9-]{1,63}$", description="Where everything is put.")
    k8s_l4_nodes: dict[str, str] = Field(
        default={"nvidia.com/gpu.product": "NVIDIA-L4"}, description="Labels of nodes with an L4, as a JSON object."
    )
    k8s_a100_nodes: dict[str, str] = Field(
        default={"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-40GB"}, description="Of nodes with an A100."
    )


CLOUDS: dict[str, type[ClusterSettings]] = {"aws": AwsSettings, "gcp": GcpSettings, "kubernetes": KubernetesSettings}


class OperatorSettings:
    """An operator's settings file, validated.

    Args:
        cloud: `aws`, `gcp` or `kubernetes`.
        file: variables, a line each.

    Raises:
        ClusterError: names every setting that is missing, unknown or wrong.
    """

    def __init__(self, cloud: str, file: Path) -> None:
        if not file.is_file():
            raise ClusterError(f"There is no {file}: copy deploy/settings.example.env there and fill it in.")
        self.file = file
        variables = {name: value for name, value in dotenv_values(file, interpolate=False).items() if value}
        known = {PREFIX + field.upper() for kind in CLOUDS.values() for field in kind.model_fields}
        known |= {"TAV_" + field.upper() for field in Settings.model_fields}
        if unknown := sorted(name for name in variables if name.startswith("TAV_") and name not in known):
            raise ClusterError(f"{file}: {', '.join(unknown)} is no setting. deploy/settings.example.env lists them.")
        self.extra_variables = {name: value for name, value in variables.items() if not name.startswith("TAV_")}
        self.cluster = _read(CLOUDS[cloud], file)
        self.services = _read(Settings, file)
        self._check_mlflow()
        check_exposure(self.services)
        if cloud == "kubernetes" and self.services.host != "0.0.0.0":
            raise ClusterError(
                f"{file}: in Kubernetes a Service leads to the gateway: set TAV_HOST to 0.0.0.0, and TAV_API_KEYS_FILE."
            )
        if cloud == "kubernetes" and self.services.tls_certfile is not None:
            raise ClusterError(
                f"{file}: in Kubernetes an Ingress speaks HTTPS: leave TAV_TLS_CERTFILE and TAV_TLS_KEYFILE empty."
            )
        if cloud == "aws" and self.services.s3_access_key_id:
            raise ClusterError(
                f"{file}: leave TAV_S3_ACCESS_KEY_ID empty on Amazon: machines have their rights from their instance profiles, "
                "and keys would replace those of Ray's autoscaler too."
            )

    def _check_mlflow(self) -> None:
        external = self.services.mlflow_tracking_uri != _NO_MLFLOW_URI
        if external == (self.cluster.mlflow_database is not None):
            raise ClusterError(
                f"{self.file}: say where MLflow is, once: TAV_CLUSTER_MLFLOW_DATABASE for a server on the head, or "
                "TAV_MLFLOW_TRACKING_URI for one that is there already."
            )


def _read(kind: type[S], file: Path) -> S:
    """Read settings from a file alone: the `TAV_*` variables of this shell are of another service."""

    def file_alone(
        cls: Any, /, settings_cls: Any, init_settings: Any, env_settings: Any, dotenv_settings: Any, **_: Any
    ) -> Any:
        return (dotenv_settings,)

    reader: type[S] = type(kind.__name__, (kind,), {"settings_customise_sources": classmethod(file_alone)})
    try:
        return reader(_env_file=file, _env_ignore_empty=True)
    except InvalidConfig as error:
        raise ClusterError(f"{file}:\n{error}") from error
