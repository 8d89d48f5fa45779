"""What both transports share: addresses, headers, and the sentence for silence."""

from __future__ import annotations

import ipaddress
import os
import sys

import httpx

from tav_client._errors import APIConnectionError, InvalidRequest
from tav_client._version import __version__

DEFAULT_URL = "http://127.0.0.1:8000"
CONNECT_TIMEOUT = 5.0


def service_url(address: str | None) -> httpx.URL:
    """Return the service's address: the argument, or `TAV_URL`, or this machine; a trailing `/v1` is dropped."""
    text = (address or os.environ.get("TAV_URL") or DEFAULT_URL).rstrip("/").removesuffix("/v1")
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL:
        url = httpx.URL("")
    if url.scheme not in ("http", "https") or not url.host:
        raise InvalidRequest(f"{text!r} is not the address of a service: give one such as {DEFAULT_URL}.")
    return url


def headers_of(api_key: str | None) -> dict[str, str]:
    """Return the headers of every request.

    Raises:
        InvalidRequest: the key has characters that no key has.
    """
    key = (api_key or os.environ.get("TAV_API_KEY") or "").strip()  # files and forms add line ends
    if not (key.isascii() and key.isprintable()):
        raise InvalidRequest("The API key has characters that no key has: give it as `tav keys create` printed it.")
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    agent = {"User-Agent": f"tav-client/{__version__} python/{python}"}
    return agent | ({"Authorization": f"Bearer {key}"} if key else {})


def is_loopback(url: httpx.URL) -> bool:
    """Say whether the service is on this machine, where no proxy would find it."""
    try:
        return ipaddress.ip_address(url.host).is_loopback
    except ValueError:
        return url.host == "localhost"


def silence_error(url: httpx.URL, error: httpx.RequestError) -> APIConnectionError:
    """Make the error for a request that got no response."""
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return APIConnectionError(
            f"The certificate of {url} is not trusted: if it is yours, let SSL_CERT_FILE name its authority."
        )
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return APIConnectionError(f"No tav service answers at {url}: start one with `tav platform up`, or set TAV_URL.")
    if isinstance(error, httpx.TimeoutException):
        return APIConnectionError(f"{url} did not answer in time: try again, or give the client a longer timeout.")
    return APIConnectionError(f"The connection to {url} was lost: {error or type(error).__name__}.")
