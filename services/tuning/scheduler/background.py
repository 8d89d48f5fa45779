"""Tasks that nothing awaits."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

log = logging.getLogger(__name__)

_tasks: set[asyncio.Task[Any]] = set()  # asyncio keeps only weak references to tasks


def start(work: Coroutine[Any, Any, Any]) -> None:
    """Run a coroutine as a task; an error that ends it is logged."""
    task = asyncio.get_running_loop().create_task(work)
    _tasks.add(task)
    task.add_done_callback(_done)


def _done(task: asyncio.Task[Any]) -> None:
    _tasks.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("a task of the scheduler failed", exc_info=error)
