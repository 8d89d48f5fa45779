"""Which memory settings a job is tried in."""

from __future__ import annotations

from services.compute import default_precision, on_cuda
from services.settings import Settings
from tav.memory import MemorySetting, ladder
from tav_client.schemas import JobMemory, JobParams


def rungs(params: JobParams, settings: Settings, stored: MemorySetting | None) -> list[MemorySetting]:
    """The settings to try, in order: an explicit one alone; with `auto` the ladder's.

    Args:
        params: the job's.
        settings: the service's; they name the precision and stage of jobs that do not.
        stored: what an earlier attempt worked in, or was to try next; `auto` goes on from there.
    """
    precision = default_precision(settings)
    if isinstance(params.memory, JobMemory):
        asked = MemorySetting.model_validate(params.memory.model_dump())
        return [asked.model_copy(update={"precision": asked.precision or precision})]
    steps = ladder(precision, settings.zero_stage, params.gradient_checkpointing, own_memory=on_cuda(settings))
    return steps[steps.index(stored) :] if stored in steps else steps
