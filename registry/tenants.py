"""Names of tenants' models. MLflow has one namespace, so a tenant's model is registered as `TENANT~NAME`.

No tenant's and no model's name has a `~`. Models of the tenant `default` are registered as plain `NAME`.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import StringConstraints

TenantName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?$")]
"""1 to 64 of `a-z 0-9 . _ -`, letters or digits at both ends."""

DEFAULT_TENANT = "default"
"""The tenant of a service without keys, and of a key without a tenant's name."""

TENANT = "tav.tenant"
"""Tag with the tenant whose run it is."""

_SEPARATOR = "~"


def registered(name: str, tenant: str) -> str:
    """Return the name in MLflow of the model that a tenant calls `name`: one of its own, or another's as `OWNER~NAME`.

    Whole references (`name@alias`, `name/version`) are translated too, here and by `called`.
    """
    owner, plain = _split(name, tenant)
    return plain if owner == DEFAULT_TENANT else f"{owner}{_SEPARATOR}{plain}"


def called(name: str, tenant: str) -> str:
    """Return what a tenant calls the model that has `name` in MLflow."""
    owner, plain = _split(name, DEFAULT_TENANT)
    return plain if owner == tenant else f"{owner}{_SEPARATOR}{plain}"


def owner_of(name: str) -> str:
    """Return the owner of the model that has `name` in MLflow."""
    return _split(name, DEFAULT_TENANT)[0]


def prefix_of(tenant: str) -> str:
    """Return what the names of a tenant's models begin with in MLflow; empty for the tenant `default`."""
    return registered("", tenant)


def _split(name: str, default: str) -> tuple[str, str]:
    owner, separator, plain = name.partition(_SEPARATOR)
    return (owner, plain) if separator else (default, name)
