"""Authentication by bearer keys, where the service has keys, and the limit on each tenant's requests."""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import re
from collections.abc import Mapping

from fastapi import Request

from services import logs
from services.api.callers import Caller
from services.api.exposure import is_loopback
from services.api.http.errors import ApiError
from services.api.keys import KeyFile, KeyRecord, find_key, why_refused
from services.api.rate_limit import RateLimiter
from services.settings import Settings
from tav.errors import TavError

log = logging.getLogger(__name__)

_REFRESH_SECONDS = 2.0
"""Until the gateway knows of a key that was created or revoked."""

_NEEDS_KEY = "This call needs a key: send 'Authorization: Bearer KEY'; for the command `tav`, set TAV_API_KEY."

_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^:\[\]]+))(?::[0-9]+)?")


class Authenticator:
    """Tells the caller of each request.

    The file of keys is read every few seconds, so that keys change without a restart. Where no file is set no request needs a
    key, and only requests to this machine's own names are answered.
    """

    def __init__(self, settings: Settings) -> None:
        self._file = KeyFile(settings.api_keys_file, settings) if settings.api_keys_file else None
        self._keys: Mapping[str, KeyRecord] = {}
        self._hosts = {name.lower() for name in settings.allowed_hosts}
        self._limiter = RateLimiter(settings.requests_per_minute)

    async def watch(self) -> None:
        """Follow the file's changes. While it cannot be read, the known keys stay valid."""
        while self._file is not None:
            await asyncio.sleep(_REFRESH_SECONDS)
            try:
                await self.refresh()
            except TavError as error:
                log.warning("the API keys cannot be read again, the known ones stay valid: %s", error)

    async def refresh(self) -> None:
        """Read the file now.

        Raises:
            InvalidConfig: it is no file of keys.
            StorageUnavailable: it is in S3, which does not answer.
        """
        if self._file is not None:
            self._keys = await asyncio.to_thread(self._file.read)

    def authenticate(self, request: Request) -> Caller:
        """Return the caller, about the tenant that the query names.

        Raises:
            ApiError: 401 no valid key; 403 the host's name or the tenant is not allowed; 429 too many requests.
        """
        caller = Caller()
        if self._file is not None:
            caller = Caller.of(self._bearer(request))
            logs.know(tenant=caller.tenant)
        else:
            self._check_host(request)
        self._limiter.count(caller.tenant)
        return caller.about(request.query_params.get("tenant"))

    def authenticate_operator(self, request: Request) -> None:
        """Refuse all but operators. A browser sends the key as a password.

        Raises:
            ApiError: 401 no valid key; 403 a tenant's key, or a host's name that is not allowed.
        """
        if self._file is None:
            self._check_host(request)
            return
        key = _credentials(request, "bearer") or _password(request)
        record = find_key(self._keys, key)
        if record is None:
            detail = "This page needs an operator's key: give it as the password; the user's name is not looked at."
            detail = f"{why_refused(self._keys, key)} {detail}" if key else detail
            raise ApiError(401, "unauthorized", detail, www_authenticate='Basic realm="tav", charset="UTF-8"')
        if not record.operator:
            raise ApiError(403, "forbidden", "This key is a tenant's: ask the operator for one made with --operator.")
        logs.know(tenant=record.tenant)

    def _check_host(self, request: Request) -> None:
        """Refuse DNS rebinding: another site may have its own name resolve to this machine."""
        match = _HOST.fullmatch(request.headers.get("host", "").lower())
        host = (match[1] or match[2]) if match else ""
        if not (is_loopback(host) or host in self._hosts):
            raise ApiError(
                403,
                "forbidden",
                f"Without keys the gateway answers to no name but this machine's loopback, not to {host!r}: ask for localhost, "
                "or set TAV_API_KEYS_FILE, or name the host in TAV_ALLOWED_HOSTS.",
            )

    def _bearer(self, request: Request) -> KeyRecord:
        key = _credentials(request, "bearer")
        record = find_key(self._keys, key)
        if record is None:
            detail = why_refused(self._keys, key) if key else _NEEDS_KEY
            raise ApiError(401, "unauthorized", detail, www_authenticate="Bearer")
        return record


def _credentials(request: Request, scheme: str) -> str:
    """Return what the Authorization header holds in this scheme, or nothing."""
    header_scheme, _, value = request.headers.get("authorization", "").partition(" ")
    return value.strip() if header_scheme.lower() == scheme else ""


def _password(request: Request) -> str:
    try:
        return base64.b64decode(_credentials(request, "basic"), validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return ""
