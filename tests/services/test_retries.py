"""Calls of storage that are made again while it is away."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from itertools import islice

import pytest

from registry.errors import NotFound, StorageUnavailable
from services.retries import pauses, retry, retry_async

AWAY = StorageUnavailable("S3 does not answer")
FULL = OSError(errno.ENOSPC, "No space left on device")


def failing_first(*errors: Exception) -> Callable[[], str]:
    """A call that fails with these errors, one after the other, and then succeeds."""
    left = list(errors)

    def call() -> str:
        if left:
            raise left.pop(0)
        return "done"

    return call


def test_pauses_double_up_to_the_longest() -> None:
    assert list(islice(pauses(longest=5.0), 6)) == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0]


def test_no_pause_is_begun_that_would_end_after_the_deadline() -> None:
    assert list(pauses(5.0, time.monotonic() + 0.4)) == []


@pytest.mark.parametrize("error", [AWAY, FULL])
def test_a_call_is_made_again_while_storage_is_away_or_the_disk_full(error: Exception) -> None:
    checks: list[None] = []
    assert retry(failing_first(error, error), iter([0.0] * 5), lambda: checks.append(None)) == "done"
    assert len(checks) == 2


def test_when_the_pauses_end_the_error_is_raised() -> None:
    with pytest.raises(StorageUnavailable):
        retry(failing_first(AWAY, AWAY), iter([0.0]), lambda: None)


@pytest.mark.parametrize("error", [NotFound("job", "x"), OSError(errno.EACCES, "Permission denied")])
def test_other_errors_are_raised_at_once(error: Exception) -> None:
    with pytest.raises(type(error)):
        retry(failing_first(error), iter([0.0]), lambda: None)


def test_a_check_after_a_pause_may_end_the_attempts() -> None:
    def stop() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        retry(failing_first(AWAY, AWAY), iter([0.0] * 5), stop)


async def test_an_event_loop_makes_a_call_again_by_the_same_policy() -> None:
    async def awaited(call: Callable[[], str]) -> str:
        return call()

    call = failing_first(AWAY, AWAY)
    assert await retry_async(lambda: awaited(call), iter([0.0] * 5)) == "done"
    call = failing_first(AWAY, AWAY)
    with pytest.raises(StorageUnavailable):
        await retry_async(lambda: awaited(call), iter([0.0]))
