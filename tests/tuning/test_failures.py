"""How an attempt's error becomes a job's end."""

from __future__ import annotations

import errno

import pytest
from ray.exceptions import ActorDiedError, NodeDiedError, RayError

from registry.errors import NotFound, StorageUnavailable
from services.tuning.tuner.attempt import Attempt
from services.tuning.tuner.failures import outcome_of
from tav.errors import InvalidClip, NanLoss, OutOfMemory


@pytest.mark.parametrize(
    ("error", "code", "retry"),
    [
        (InvalidClip("it has no frames"), "invalid_clip", False),
        (NanLoss("the loss became nan"), "nan_loss", False),
        (OutOfMemory("too many frames"), "out_of_memory", False),
        (StorageUnavailable("S3 does not answer"), "storage_unavailable", True),
        (OSError(errno.ENOSPC, "No space left on device", "/scratch/clip"), "disk_full", True),
        (OSError(errno.EACCES, "Permission denied"), "internal", False),
        (NotFound("model", "x"), "internal", False),
        (ZeroDivisionError("a defect"), "internal", False),
    ],
)
def test_an_error_has_its_code_and_only_what_may_pass_is_tried_again(error: Exception, code: str, retry: bool) -> None:
    outcome = outcome_of(error)
    assert outcome.failure is not None
    assert (outcome.failure.code, outcome.retry, outcome.version) == (code, retry, None)
    assert bool(outcome.traceback) == (code == "internal")


def test_a_job_whose_run_was_deleted_is_cancelled() -> None:
    outcome = outcome_of(NotFound("job", "x"))
    assert (outcome.failure, outcome.version, outcome.last) == (None, None, True)


@pytest.mark.parametrize("error", [ActorDiedError(), NodeDiedError("the node was cut off")])
def test_a_tuner_that_has_lost_its_cluster_ends_and_says_nothing_of_the_job(error: RayError) -> None:
    class CutOff(Attempt):
        def __init__(self) -> None:
            pass

        def _work(self) -> int | None:
            raise error

    with pytest.raises(type(error)):
        CutOff()._outcome()
