"""How an attempt's error becomes its outcome."""

from __future__ import annotations

import traceback

from ray.exceptions import RayError, RayTaskError

from registry.errors import NotFound, StorageUnavailable
from services.tuning.messages import Outcome
from tav.errors import OutOfMemory, TavError, is_disk_full
from tav_client.schemas import Failure, FailureCode


class OutOfMemoryForNow(OutOfMemory):
    """The attempt ran out of memory on one of several ranks; the next one goes on in a leaner setting."""


def lost_its_cluster(error: Exception) -> bool:
    """Return whether the tuner's cluster is gone: its node was cut off and given up, or the head was started anew.

    Another process may have the job by then, so the tuner must not report anything more about it.
    """
    return isinstance(error, RayError) and not isinstance(error, RayTaskError)


def outcome_of(error: Exception) -> Outcome:
    """Return what to report of an attempt that ended with `error`: the failure's code, and whether to try again."""
    if isinstance(error, StorageUnavailable):
        return Outcome(failure=Failure(code=FailureCode.storage_unavailable, message=str(error)), retry=True)
    if isinstance(error, NotFound) and error.kind == "job":  # a user deleted its run in MLflow, which is a cancel
        return Outcome()
    if isinstance(error, OutOfMemoryForNow):
        return Outcome(failure=Failure(code=FailureCode.out_of_memory, message=str(error)), retry=True)
    if is_disk_full(error):
        place = getattr(error, "filename", None) or "its scratch space"
        message = f"The worker's disk is full ({place}): free some of TAV_WORK_DIR, then retry."
        return Outcome(failure=Failure(code=FailureCode.disk_full, message=message), retry=True)
    if isinstance(error, TavError) and error.code in FailureCode.__members__:
        return Outcome(failure=Failure(code=FailureCode(error.code), message=str(error)))
    message = f"An unexpected {type(error).__name__} ended the job; its run keeps the traceback. Please report it."
    trace = "".join(traceback.format_exception(error))
    return Outcome(failure=Failure(code=FailureCode.internal, message=message), traceback=trace)
