"""Whether the gateway may listen where its settings say: beyond this machine's loopback it needs keys."""

from __future__ import annotations

from ipaddress import ip_address

from services.api.keys import KeyFile
from services.settings import Settings
from tav.errors import InvalidConfig


def check_exposure(settings: Settings) -> None:
    """Refuse to listen beyond loopback without keys, and HTTPS with half of its files named. Reads no file.

    Raises:
        InvalidConfig: says what to set.
    """
    if settings.api_keys_file is None and not is_loopback(settings.host):
        raise InvalidConfig(
            f"The gateway may not listen on {settings.host} without keys, anybody could use it: make some with "
            "`tav keys create` and set TAV_API_KEYS_FILE, or set TAV_HOST to 127.0.0.1."
        )
    if (settings.tls_certfile is None) != (settings.tls_keyfile is None):
        raise InvalidConfig("HTTPS needs both a certificate and its key: set TAV_TLS_CERTFILE and TAV_TLS_KEYFILE, or neither.")


def check_credentials(settings: Settings) -> None:
    """Check the exposure, and that keys and certificate exist. Call it on the machine where the gateway is to run.

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


def is_loopback(host: str) -> bool:
    """Return whether an address, or `localhost`, is this machine's loopback."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
