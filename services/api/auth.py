"""Optional bearer keys."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence
from ipaddress import ip_address

from fastapi import Request
from pydantic import SecretStr

from services.api.errors import ApiError
from services.settings import Settings
from tav.errors import InvalidConfig


def key_required(keys: Sequence[SecretStr]) -> Callable[[Request], None]:
    """A dependency that refuses requests without one of `keys`; without keys nobody is refused."""
    known = [key.get_secret_value().encode() for key in keys]

    def check(request: Request) -> None:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        matches = [hmac.compare_digest(given.strip().encode(), key) for key in known]
        if known and not (scheme.lower() == "bearer" and any(matches)):
            raise ApiError(
                401, "unauthorized", "This call needs a key: send 'Authorization: Bearer KEY'.", www_authenticate="Bearer"
            )

    return check


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
    if any(not key.get_secret_value().strip() for key in settings.api_keys):
        raise InvalidConfig("One of the keys in TAV_API_KEYS is empty: remove it, or anybody could use the service.")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
