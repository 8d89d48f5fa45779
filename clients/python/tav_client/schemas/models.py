"""Models of the registry: their versions, aliases and files."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, computed_field

from tav_client.schemas.common import Request, Response


class StoredFile(Response):
    """One object of a model version."""

    uri: str
    sha256: str
    size: int = Field(description="Bytes.")


class ModelVersion(Response):
    """One numbered delta and its inverted latents."""

    name: str
    version: int
    object: Literal["model_version"] = "model_version"
    created_at: float
    job_id: str
    base: str
    base_fingerprint: str
    caption: str
    num_frames: int
    size: tuple[int, int]
    aliases: list[str] = Field(default_factory=list)
    files: dict[str, StoredFile] = Field(default_factory=dict, description="`delta.safetensors`, `latents.safetensors`, …")


class Model(Response):
    """A named entry of the registry."""

    name: str
    object: Literal["model"] = "model"
    created_at: float
    updated_at: float
    latest_version: int
    aliases: dict[str, int] = Field(default_factory=dict)
    tenant: str = Field("default", description="Whose it is.")
    shared: bool = Field(False, description="Other tenants may sample it, as `TENANT~NAME`.")

    @computed_field(description="The name, as OpenAI's model object has it.")  # type: ignore[prop-decorator]
    @property
    def id(self) -> str:
        """The name, as OpenAI's model object has it."""
        return self.name

    @computed_field(description="`created_at` in whole seconds, as OpenAI has it.")  # type: ignore[prop-decorator]
    @property
    def created(self) -> int:
        """`created_at` in whole seconds, as OpenAI has it."""
        return int(self.created_at)

    @computed_field(description="The tenant, as OpenAI has it.")  # type: ignore[prop-decorator]
    @property
    def owned_by(self) -> str:
        """The tenant, as OpenAI has it."""
        return self.tenant


class ModelUpdate(Request):
    """`PATCH /v1/models/{name}`."""

    shared: bool = Field(description="Whether other tenants may sample it. It stays its owner's to change.")


class AliasSet(Request):
    """`PUT /v1/models/{name}/aliases/{alias}`."""

    version: int = Field(ge=1, le=999_999_999, description="What the alias shall point at.")


class ModelDeleted(Response):
    """Answer of `DELETE /v1/models/{name}`."""

    name: str
    object: Literal["model.deleted"] = "model.deleted"
    deleted: bool = True


class ModelVersionDeleted(Response):
    """Answer of `DELETE /v1/models/{name}/versions/{v}`."""

    name: str
    version: int
    object: Literal["model_version.deleted"] = "model_version.deleted"
    deleted: bool = True
