"""The processes of one tuner, and how they stay together when one of them fails.

The ranks agree over a process group of its own, beside the one for gradients. So a rank that fails while the others wait for
its gradients can still notice that, and end the tuner, which then starts anew.
"""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")

_TIMEOUT = timedelta(days=1)
"""Of ranks that work: the leader may wait for storage, or for a job. A rank that dies is noticed at once."""
_FAILED_TIMEOUT = timedelta(seconds=30)
"""Of a rank that failed in the middle of a step."""


class RanksApart(Exception):
    """A rank failed while the others wait for it elsewhere: the tuner's processes must start anew."""


class Ranks:
    """All processes of a tuner; torch.distributed must be initialised. With one process nothing is sent."""

    def __init__(self) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self._group = dist.new_group(backend="gloo", timeout=_TIMEOUT) if self.size > 1 else None

    @property
    def leader(self) -> bool:
        """True on the rank that speaks for all."""
        return self.rank == 0

    def from_leader(self, value: T) -> T:
        """Return the leader's value, on all ranks."""
        box = [value]
        if self.size > 1:
            dist.broadcast_object_list(box, group=self._group)
        return box[0]

    def any(self, *flags: bool, timeout: timedelta = _TIMEOUT) -> tuple[bool, ...]:
        """Return, flag by flag, whether any rank raised it.

        Raises:
            RanksApart: the others did not call this in time.
        """
        if self.size == 1:
            return flags
        box = torch.tensor(flags, dtype=torch.int32)
        try:
            work: Any = dist.all_reduce(box, op=dist.ReduceOp.MAX, group=self._group, async_op=True)
            work.wait(timeout)
        except RuntimeError as error:  # gloo: timed out, or a rank has died
            raise RanksApart(f"The ranks of the tuner do not come together ({error}).") from error
        return tuple(bool(flag) for flag in box.tolist())

    def share(self, error: Exception | None) -> None:
        """Share the ranks' errors, None for success; all ranks raise the first error there is."""
        box: list[Any] = [error]
        if self.size > 1:
            box = [None] * self.size
            dist.all_gather_object(box, _portable(error), group=self._group)
        for failure in box:
            if failure is not None:
                raise failure

    def together(self, work: Callable[[], T]) -> T:
        """Do work on every rank and return its result; where one rank fails, all raise its error."""
        try:
            value = work()
        except Exception as error:
            self.share(error)
            raise
        self.share(None)
        return value

    def tell_failure(self, error: Exception, flags: int) -> None:
        """Share an error from the middle of a step, when the others are to call `any` at its end, with `failed` as last flag.

        Raises:
            RanksApart: they do not come to the step's end; the error is its cause.
        """
        if self.size == 1:
            raise error
        try:
            self.any(*[False] * (flags - 1), True, timeout=_FAILED_TIMEOUT)
        except RanksApart as apart:
            raise apart from error
        self.share(error)


def _portable(error: Exception | None) -> Exception | None:
    """Return an error that can be pickled: itself, or else its text."""
    if error is None:
        return None
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 - any class may refuse in any way
        return RuntimeError("".join(traceback.format_exception(error)))
    return error
