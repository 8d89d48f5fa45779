"""Sends calls over a socket, repeats them as the policy says, and turns silence and problems into errors."""

from __future__ import annotations

import ipaddress
import itertools
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TypeVar

import httpx

from tav_client import schemas
from tav_client._calls import Call, raise_for_problem
from tav_client._errors import APIConnectionError, APIStatusError, InvalidRequest, TavClientError
from tav_client._events import Following
from tav_client._retry import RetryPolicy
from tav_client._version import __version__

T = TypeVar("T")

DEFAULT_URL = "http://127.0.0.1:8000"
CONNECT_TIMEOUT = 5.0


def service_url(given: str | None) -> httpx.URL:
    """The service's address: what was given, or `TAV_URL`, or this machine; a trailing `/v1` is dropped."""
    text = (given or os.environ.get("TAV_URL") or DEFAULT_URL).rstrip("/").removesuffix("/v1")
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL:
        url = httpx.URL("")
    if url.scheme not in ("http", "https") or not url.host:
        raise InvalidRequest(f"{text!r} is not the address of a service: give one such as {DEFAULT_URL}.")
    return url


def headers_of(api_key: str | None) -> dict[str, str]:
    """Headers of every request."""
    key = api_key or os.environ.get("TAV_API_KEY")
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    agent = {"User-Agent": f"tav-client/{__version__} python/{python}"}
    return agent | ({"Authorization": f"Bearer {key}"} if key else {})


def is_loopback(url: httpx.URL) -> bool:
    """Whether the service is on this machine, where no proxy would find it."""
    try:
        return ipaddress.ip_address(url.host).is_loopback
    except ValueError:
        return url.host == "localhost"


def silence_error(url: httpx.URL, error: httpx.RequestError) -> APIConnectionError:
    """The sentence for a request that got no answer."""
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return APIConnectionError(f"No tav service answers at {url}: start one with `tav platform up`, or set TAV_URL.")
    if isinstance(error, httpx.TimeoutException):
        return APIConnectionError(f"{url} did not answer in time: try again, or give the client a longer timeout.")
    return APIConnectionError(f"The connection to {url} was lost: {error or type(error).__name__}.")


class Transport:
    """A connection pool to one service."""

    def __init__(self, base_url: str | None, api_key: str | None, timeout: float, policy: RetryPolicy) -> None:
        self.url = service_url(base_url)
        self.timeout = timeout
        self.policy = policy
        self.http = httpx.Client(
            base_url=self.url,
            headers=headers_of(api_key),
            timeout=httpx.Timeout(timeout, connect=min(timeout, CONNECT_TIMEOUT)),
            trust_env=not is_loopback(self.url),
        )

    def close(self) -> None:
        """Closes the connections."""
        self.http.close()

    def sleep(self, seconds: float) -> None:
        """Between two requests of one call."""
        time.sleep(seconds)

    def send(self, call: Call[T]) -> T:
        """The answer to a call.

        Raises:
            APIConnectionError: No answer, after the repetitions the policy allows.
            APIStatusError: The answer is a problem.
        """
        for attempt in itertools.count():
            try:
                with ExitStack() as files:
                    response = self.http.send(self._request(call, files))
            except httpx.RequestError as error:
                delay = self.policy.after_silence(call, error, attempt)
                if delay is None:
                    raise silence_error(self.url, error) from error
            else:
                delay = self.policy.after_answer(call, response, attempt)
                if delay is None:
                    raise_for_problem(response)
                    return call.read(response)
            self.sleep(delay)
        raise AssertionError("unreachable")

    def every(self, page: Callable[[str | None], Call[schemas.Page[T]]]) -> Iterator[T]:
        """All entries of a list; `page` makes the call for the page after a cursor."""
        after: str | None = None
        while True:
            answer = self.send(page(after))
            yield from answer.data
            if answer.next_cursor is None:
                return
            after = answer.next_cursor

    def follow(self, following: Following) -> Iterator[schemas.TuningJob]:
        """Snapshots of a job until it is final, across cut streams."""
        while True:
            error: TavClientError | None = None
            try:
                for chunk in self._stream(following.call(), following.silence()):
                    yield from following.feed(chunk)
                    if following.finished:
                        return
            except httpx.RequestError as silence:
                error = silence_error(self.url, silence)
            except APIStatusError as problem:
                error = problem
            self.sleep(following.cut(error))

    def _request(self, call: Call[T], files: ExitStack, read_timeout: float | None = None) -> httpx.Request:
        request = self.http.build_request(**call.arguments(files))
        if (seconds := read_timeout or call.timeout) is not None:
            request.extensions["timeout"]["read"] = seconds
        return request

    def _stream(self, call: Call[None], read_timeout: float) -> Iterator[bytes]:
        with ExitStack() as opened:
            response = self.http.send(self._request(call, opened, read_timeout), stream=True)
            opened.callback(response.close)
            if response.status_code >= 400:
                response.read()
                raise_for_problem(response)
            call.read(response)
            yield from response.iter_bytes()
