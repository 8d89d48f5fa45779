"""Optional bearer keys, whose requests they make, and how many."""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import re
from collections.abc import Mapping
from ipaddress import ip_address

from fastapi import Request

from services import logs
from services.api.callers import Caller
from services.api.http.errors import ApiError
from services.api.keys import KeyFile, KeyRecord, find_key, why_refused
from services.api.rates import Rates
from services.settings import Settings
from tav.errors import InvalidConfig, TavError

log = logging.getLogger(__name__)

_REFRESH_SECONDS = 2.0
"""A key that is made or revoked is so for the gateway after this."""

_NEEDS_KEY = "This call needs a key: send 'Authorization: Bearer KEY'; for the command `tav`, set TAV_API_KEY."

_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^:\[\]]+))(?::[0-9]+)?")


class Doorkeeper:
    """Who may come in. The file of keys is read again and again, so that keys change without a restart."""

    def __init__(self, settings: Settings) -> None:
        self._file = KeyFile(settings.api_keys_file, settings) if settings.api_keys_file else None
        self._keys: Mapping[str, KeyRecord] = {}
        self._hosts = {name.lower() for name in settings.allowed_hosts}
        self._rates = Rates(settings.requests_per_minute)

    async def watch(self) -> None:
        """Follow the file's changes. While it cannot be read, the keys that are known stay valid."""
        while self._file is not None:
            await asyncio.sleep(_REFRESH_SECONDS)
            try:
                await self.look()
            except TavError as error:
                log.warning("The API keys cannot be read again, the known ones stay valid: %s", error)

    async def look(self) -> None:
        """Read the file now."""
        if self._file is not None:
            self._keys = await asyncio.to_thread(self._file.read)

    async def check(self, request: Request) -> None:
        """A dependency that refuses requests without a key, or too many of one tenant; without a file nobody needs a key.

        It runs in the request's own task, so that the request's log lines know the tenant.
        """
        caller = Caller()
        if self._file is not None:
            caller = Caller.of(self._bearer(request))
            logs.know(tenant=caller.tenant)
        else:
            self._check_host(request)
        self._rates.take(caller.tenant)
        request.state.caller = caller.about(request.query_params.get("tenant"))

    async def check_operator(self, request: Request) -> None:
        """Likewise for what only operators may see; a browser sends the key as a password."""
        if self._file is None:
            self._check_host(request)
            return
        key = _given(request, "bearer") or _password(request)
        record = find_key(self._keys, key)
        if record is None:
            detail = "This page needs an operator's key: give it as the password; the user's name is not looked at."
            detail = f"{why_refused(self._keys, key)} {detail}" if key else detail
            raise ApiError(401, "unauthorized", detail, www_authenticate='Basic realm="tav", charset="UTF-8"')
        if not record.operator:
            raise ApiError(403, "forbidden", "This key is a tenant's: ask the operator for one made with --operator.")
        logs.know(tenant=record.tenant)

    def _check_host(self, request: Request) -> None:
        """Without keys: a page of another site may have its own name lead to this machine, and would then be answered."""
        named = _HOST.fullmatch(request.headers.get("host", "").lower())
        host = (named[1] or named[2]) if named else ""
        if not (_is_loopback(host) or host in self._hosts):
            raise ApiError(
                403,
                "forbidden",
                f"Without keys the gateway answers to no name but this machine's loopback, not to {host!r}: ask for localhost, "
                "or set TAV_API_KEYS_FILE, or name the host in TAV_ALLOWED_HOSTS.",
            )

    def _bearer(self, request: Request) -> KeyRecord:
        key = _given(request, "bearer")
        record = find_key(self._keys, key)
        if record is None:
            detail = why_refused(self._keys, key) if key else _NEEDS_KEY
            raise ApiError(401, "unauthorized", detail, www_authenticate="Bearer")
        return record


def _given(request: Request, scheme: str) -> str:
    said, _, value = request.headers.get("authorization", "").partition(" ")
    return value.strip() if said.lower() == scheme else ""


def _password(request: Request) -> str:
    try:
        return base64.b64decode(_given(request, "basic"), validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return ""


def check_exposure(settings: Settings) -> None:
    """Refuse to listen to others than this machine without keys, and half of what HTTPS needs. Looks at no file.

    Raises:
        InvalidConfig: says what to set.
    """
    if settings.api_keys_file is None and not _is_loopback(settings.host):
        raise InvalidConfig(
            f"The gateway may not listen on {settings.host} without keys, anybody could use it: make some with "
            "`tav keys create` and set TAV_API_KEYS_FILE, or set TAV_HOST to 127.0.0.1."
        )
    if (settings.tls_certfile is None) != (settings.tls_keyfile is None):
        raise InvalidConfig("HTTPS needs both a certificate and its key: set TAV_TLS_CERTFILE and TAV_TLS_KEYFILE, or neither.")


def check_door(settings: Settings) -> None:
    """Likewise, and see that keys and certificate are there; on the machine where the gateway is to run.

    Raises:
        InvalidConfig: says what to do.
        StorageUnavailable: the keys are in S3, which does not answer.
    """
    check_exposure(settings)
    for path in (settings.tls_certfile, settings.tls_keyfile):
        if path is not None and not path.is_file():
            raise InvalidConfig(f"There is no file {path}: correct TAV_TLS_CERTFILE and TAV_TLS_KEYFILE, or leave both out.")
    if settings.api_keys_file is not None and not KeyFile(settings.api_keys_file, settings).read():
        raise InvalidConfig(
            f"There are no keys in {settings.api_keys_file}, nobody could use the gateway: make one with "
            f"`tav keys create --file {settings.api_keys_file} --tenant NAME`."
        )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
