"""Whose is what. MLflow has one space of names for all tenants, so a tenant's model is registered as `TENANT~NAME`.

No tenant and no model has a `~` in its name. The tenant `default`, whose things are those of a service without keys, keeps
the plain `NAME`.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import StringConstraints

TenantName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?$")]
"""1 to 64 of `a-z 0-9 . _ -`, letters or digits at both ends."""

DEFAULT_TENANT = "default"
"""Whose things are those of a service without keys, or of a key without a tenant's name."""

TENANT = "tav.tenant"
"""Tag that tells whose a run is."""

_BETWEEN = "~"


def registered(name: str, tenant: str) -> str:
    """What MLflow calls the model that a tenant calls `name`: one of its own, or another's as `OWNER~NAME`.

    Whole references (`name@alias`, `name/version`) are translated alike, here and by `called`.
    """
    owner, plain = _split(name, tenant)
    return plain if owner == DEFAULT_TENANT else f"{owner}{_BETWEEN}{plain}"


def called(name: str, tenant: str) -> str:
    """What a tenant calls the model that MLflow calls `name`."""
    owner, plain = _split(name, DEFAULT_TENANT)
    return plain if owner == tenant else f"{owner}{_BETWEEN}{plain}"


def owner_of(name: str) -> str:
    """Whose the model is that MLflow calls `name`."""
    return _split(name, DEFAULT_TENANT)[0]


def prefix_of(tenant: str) -> str:
    """How the names of a tenant's models begin in MLflow; nothing for the tenant `default`."""
    return registered("", tenant)


def _split(name: str, otherwise: str) -> tuple[str, str]:
    owner, between, plain = name.partition(_BETWEEN)
    return (owner, plain) if between else (otherwise, name)
