"""Optional bearer keys, and whose requests they make."""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from typing import Annotated

from fastapi import Depends, Request
from pydantic import SecretStr

from registry.jobs import DEFAULT_TENANT
from services.api.errors import ApiError
from services.settings import Settings
from tav.errors import InvalidConfig

_TENANT = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")


def key_required(keys: Sequence[SecretStr]) -> Callable[[Request], None]:
    """A dependency that refuses requests without one of `keys`; without keys nobody is refused."""
    known = [_split(key) for key in keys]

    def check(request: Request) -> None:
        request.state.tenant = None
        if not known:
            return
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        matches = [tenant for tenant, key in known if hmac.compare_digest(given.strip().encode(), key.encode())]
        if scheme.lower() != "bearer" or not matches:
            raise ApiError(
                401, "unauthorized", "This call needs a key: send 'Authorization: Bearer KEY'.", www_authenticate="Bearer"
            )
        request.state.tenant = matches[0]

    return check


def _tenant_of(request: Request) -> str | None:
    return getattr(request.state, "tenant", None)


Tenant = Annotated[str | None, Depends(_tenant_of)]
"""Whose key came with the request; None where the service has no keys, and so nobody is told from another."""


def _split(key: SecretStr) -> tuple[str, str]:
    """`tenant:key`, or a key of the default tenant."""
    tenant, colon, rest = key.get_secret_value().partition(":")
    return (tenant, rest) if colon else (DEFAULT_TENANT, tenant)


def check_exposure(settings: Settings) -> None:
    """Refuse to listen to others than this machine without keys.

    Raises:
        InvalidConfig: says what to set.
    """
    if not settings.api_keys and not _is_loopback(settings.host):
        raise InvalidConfig(
            f"The gateway may not listen on {settings.host} without keys, anybody could use it: set TAV_API_KEYS, or TAV_HOST "
            "to 127.0.0.1."
        )
    for tenant, key in map(_split, settings.api_keys):
        if not key.strip():
            raise InvalidConfig("One of the keys in TAV_API_KEYS is empty: remove it, or anybody could use the service.")
        if not _TENANT.fullmatch(tenant):
            raise InvalidConfig(
                f"{tenant!r} in TAV_API_KEYS is no tenant's name: an entry is KEY or TENANT:KEY, the name of a-z 0-9 . _ -."
            )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
