"""Where MLflow and S3 are."""

from __future__ import annotations

from typing import Any

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from tav.errors import InvalidConfig
from tav.sentences import Loc, dotted, faults


class EnvironmentSettings(BaseSettings):
    """Settings from the environment. Errors name the variables at fault, never their values.

    Raises:
        InvalidConfig: one line for each variable at fault.
    """

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except SettingsError as error:  # a list or an object that is not JSON
            raise InvalidConfig(f"{error}: lists and objects are written as JSON.") from None
        except ValidationError as error:
            lines = faults(error.errors(include_url=False), type(self), self._variable, show=False)
            raise InvalidConfig("\n".join(fault.text for fault in lines)) from None

    @classmethod
    def _variable(cls, loc: Loc) -> str:
        return dotted((cls.model_config.get("env_prefix", "") + str(loc[0]).upper(), *loc[1:])) if loc else ""


class RegistrySettings(EnvironmentSettings):
    """Settings of MLflow and S3, read once from `TAV_*`."""

    model_config = SettingsConfigDict(env_prefix="TAV_", frozen=True, extra="ignore")

    mlflow_tracking_uri: str = Field("http://127.0.0.1:5000", description="The MLflow server, as services reach it.")
    mlflow_public_url: str | None = Field(None, description="The MLflow UI, as people reach it; default: as services do.")
    mlflow_timeout_seconds: int = Field(30, ge=1, description="Of one MLflow request.")
    mlflow_max_retries: int = Field(3, ge=0, le=8, description="Of one MLflow request, with growing pauses between.")
    experiment: str = Field("tav", min_length=1, description="The MLflow experiment that holds all runs.")
    s3_endpoint_url: str | None = Field(None, description="Left out, Amazon's.")
    s3_public_endpoint_url: str | None = Field(None, description="S3, as people reach it to upload; default: as services do.")
    s3_bucket: str = Field("tav", min_length=3, max_length=63, description="Holds clips, runs' artifacts and versions.")
    s3_region: str = Field("us-east-1", description="Of the bucket.")
    s3_access_key_id: str | None = Field(None, description="Left out, boto3's own credential chain is used.")
    s3_secret_access_key: SecretStr | None = Field(None, description="Goes with the access key id.")
    s3_timeout_seconds: int = Field(60, ge=1, description="Without a byte from S3 for so long, a request is retried.")

    def run_url(self, experiment_id: str, run_id: str | None = None) -> str:
        """Return a run's page in the MLflow UI; without a run, the page of all runs."""
        root = (self.mlflow_public_url or self.mlflow_tracking_uri).rstrip("/")
        return f"{root}/#{run_path(experiment_id, run_id)}"


def run_path(experiment_id: str, run_id: str | None = None) -> str:
    """Return the path in the MLflow UI of a run, or of all runs.

    It says that these are training runs: by default MLflow shows an experiment as one of LLM traces, and so empty.
    """
    page = f"runs/{run_id}" if run_id else "runs"
    return f"/experiments/{experiment_id}/{page}?workflowType=machine_learning"
