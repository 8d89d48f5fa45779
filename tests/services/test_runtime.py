"""Imports without the collector."""

import gc
from collections.abc import Iterator

import pytest

from services.runtime import collector_paused


@pytest.fixture(autouse=True)
def thawed() -> Iterator[None]:
    yield
    gc.unfreeze()


def fail() -> None:
    with collector_paused():
        assert not gc.isenabled()
        raise ImportError


def test_the_collector_rests_while_modules_are_imported_and_then_works_again() -> None:
    with pytest.raises(ImportError):
        fail()
    assert gc.isenabled() and gc.get_freeze_count() > 0
