"""Sends calls over a socket, repeats them as the policy says, and turns silence and problems into errors."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TypeVar

import httpx

from tav_client import schemas
from tav_client._calls import Call, get_job, raise_for_problem
from tav_client._download import Download
from tav_client._errors import APIStatusError, TavClientError
from tav_client._events import EventStream
from tav_client._http import CONNECT_TIMEOUT, headers_of, is_loopback, service_url, silence_error
from tav_client._logs import SILENCE, LogStream
from tav_client._retry import RetryPolicy

T = TypeVar("T")
S = TypeVar("S", schemas.TuningJob, schemas.Video)


class Transport:
    """A connection pool to one service."""

    def __init__(
        self, base_url: str | None, api_key: str | None, timeout: float, policy: RetryPolicy, tenant: str | None = None
    ) -> None:
        self.url = service_url(base_url)
        self.tenant = tenant
        self.api_key = api_key
        self.timeout = timeout
        self.policy = policy
        self.http = httpx.Client(
            base_url=self.url,
            headers=headers_of(api_key),
            timeout=httpx.Timeout(timeout, connect=min(timeout, CONNECT_TIMEOUT)),
            verify=httpx.create_ssl_context(),  # with SSL_CERT_FILE, also where no proxy is asked for
            trust_env=not is_loopback(self.url),
        )

    def close(self) -> None:
        """Close the connections."""
        self.http.close()

    def sleep(self, seconds: float) -> None:
        """Wait between two requests of one call."""
        time.sleep(seconds)

    def send(self, call: Call[T]) -> T:
        """Make a call and return the response.

        Raises:
            APIConnectionError: no answer, after the repetitions the policy allows.
            APIStatusError: the answer is a problem.
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
        """List all entries; `page` makes the call for the page after a cursor."""
        after: str | None = None
        while True:
            answer = self.send(page(after))
            for entry in answer.data:
                yield entry
            if answer.next_cursor is None:
                return
            after = answer.next_cursor

    def follow(self, events: EventStream[S]) -> Generator[S]:
        """Yield snapshots of a job or video until it is final, across cut streams."""
        while True:
            error: TavClientError | None = None
            try:
                with closing(self._stream(events.call(), events.silence())) as chunks:
                    for chunk in chunks:
                        for snapshot in events.feed(chunk):
                            yield snapshot
                        if events.finished:
                            return
            except httpx.RequestError as silence:
                error = silence_error(self.url, silence)
            except APIStatusError as problem:
                error = problem
            self.sleep(events.cut(error))

    def follow_log(self, log: LogStream) -> Generator[str]:
        """Yield what a job's log gains until the job has ended, across cut streams."""
        while True:
            error: TavClientError | None = None
            try:
                with closing(self._stream(log.call(), SILENCE)) as chunks:
                    for chunk in chunks:
                        yield log.feed(chunk)
                if (self.send(get_job(log.id))).status.final:
                    with closing(self._stream(log.call(follow=False), self.timeout)) as chunks:
                        for chunk in chunks:  # what was said since, if it was the stream alone that ended
                            yield log.feed(chunk)
                    return
            except httpx.RequestError as silence:
                error = silence_error(self.url, silence)
            except APIStatusError as problem:
                error = problem
            self.sleep(log.cut(error))

    def download(self, download: Download) -> None:
        """Fetch bytes into a file; a cut connection is opened again and resumes where it was."""
        for attempt in itertools.count():
            try:
                with closing(self._stream(download.call(), self.timeout)) as chunks:
                    for chunk in chunks:
                        download.feed(chunk)
                if download.complete:
                    return
                error: httpx.RequestError = httpx.RemoteProtocolError("it ended early")
            except httpx.RequestError as silence:
                error = silence
            except APIStatusError as problem:
                if problem.status < 500 or attempt >= self.policy.max_retries:
                    raise
                error = httpx.RemoteProtocolError(problem.message)
            if attempt >= self.policy.max_retries:
                raise silence_error(self.url, error) from error
            self.sleep(self.policy.backoff(attempt))

    def put(self, upload: schemas.Upload, path: Path) -> None:
        """Send a file to the address that the service named, which is S3 and must not see the service's key."""
        size = {"Content-Length": str(path.stat().st_size)}
        for attempt in itertools.count():
            request = self.http.build_request(upload.method, upload.url, headers=upload.headers | size, content=_pieces(path))
            request.headers.pop("Authorization", None)
            try:
                response = self.http.send(request)
            except httpx.RequestError as error:
                if attempt >= self.policy.max_retries:
                    raise silence_error(self.url, error) from error
            else:
                if response.status_code < 500 or attempt >= self.policy.max_retries:
                    return raise_for_problem(response)
            self.sleep(self.policy.backoff(attempt))

    def _request(self, call: Call[T], files: ExitStack, read_timeout: float | None = None) -> httpx.Request:
        request = self.http.build_request(**call.arguments(files))
        if self.tenant is not None:
            request.url = request.url.copy_set_param("tenant", self.tenant)
        if (seconds := read_timeout or call.timeout) is not None:
            request.extensions["timeout"]["read"] = seconds
        return request

    def _stream(self, call: Call[None], read_timeout: float) -> Generator[bytes]:
        with ExitStack() as files:
            response = self.http.send(self._request(call, files, read_timeout), stream=True)
            try:
                if response.status_code >= 400:
                    response.read()
                    raise_for_problem(response)
                call.read(response)
                for chunk in response.iter_bytes():
                    yield chunk
            finally:
                response.close()


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            yield piece
