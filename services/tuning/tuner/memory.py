"""Tuning in a memory setting that fits: with `auto`, after each out of memory in the next leaner setting."""

from __future__ import annotations

import logging

from services.compute import on_cuda, tuner_memory
from services.tuning.estimates import beyond, rungs
from services.tuning.tuner.control import FLAGS, AttemptStopped, Control, NodePreempted, OtherRankFailed
from services.tuning.tuner.failures import OutOfMemoryForNow
from services.tuning.tuner.ranks import RanksApart
from services.tuning.tuner.warm_tuner import WarmTuner
from tav import Clip, Delta
from tav.config import TuneConfig
from tav.errors import OutOfMemory
from tav.memory import MemorySetting
from tav.tuning import TuneState, is_out_of_memory
from tav_client.schemas import Estimate, JobMemory

log = logging.getLogger(__name__)

SMALLER = "use fewer frames or a smaller size"
"""What to do about a job that does not fit."""


def tune(warm: WarmTuner, control: Control, clip: Clip, config: TuneConfig, resume: TuneState | None) -> Delta:
    """Tune the attempt's job on all ranks together.

    Args:
        warm: this rank's tuner.
        control: the attempt's.
        clip: the job's, with its caption.
        config: the job's.
        resume: the checkpoint to go on from.

    Raises:
        OutOfMemory: the job fits in none of the settings.
        RanksApart: the ranks cannot go on together.
    """
    ranks = control.ranks
    settings, estimates = ranks.together(lambda: _candidates(warm, control) if ranks.leader else ([], {}))
    settings = ranks.from_leader(settings)
    for setting, *leaner in (settings[place:] for place in range(len(settings))):
        log.info("tunes with %s", setting.describe())
        _save_setting(control, setting)
        control.report.expect(estimates.get(setting))
        try:
            return _tune_in(setting, warm, control, clip, config, resume)
        except OutOfMemory as error:
            failure = str(error)
        except RanksApart as apart:
            if leaner and isinstance(apart.__cause__, OutOfMemory):
                _save_setting(control, leaner[0], ranks.rank)
                raise RanksApart(str(apart)) from OutOfMemoryForNow(str(apart.__cause__))
            raise
        log.warning("%s", failure)
        warm.discard()  # out here nothing holds the error, whose traceback holds the activations
        resume = ranks.together(lambda: control.retry(control.checkpoints.load))
    explicit = isinstance(control.job.params.memory, JobMemory)
    raise OutOfMemory(
        f"{describe(clip)} do not fit the device's memory with {settings[-1].describe()}: "
        + ("leave `memory` to `auto`, or " if explicit else "")
        + SMALLER
    )


def describe(clip: Clip) -> str:
    """Return the clip's size, for messages."""
    width, height = clip.size
    return f"{len(clip.frames)} frames of {width}x{height}"


def _candidates(warm: WarmTuner, control: Control) -> tuple[list[MemorySetting], dict[MemorySetting, Estimate]]:
    """Return the settings to try and their estimates: from an earlier attempt's setting on, or from the fastest that fits."""
    settings, estimates = rungs(control.job.params, control.settings, cuda=on_cuda(control.settings)), {}
    first = control.retry(control.checkpoints.load_setting)
    if (forecast := warm.forecast(control.job, settings, control.ranks.size)) is not None:
        if refusal := beyond(forecast, tuner_memory(control.settings)):
            raise refusal
        estimates = dict(zip(settings, forecast.settings, strict=True))
        first = first or settings[forecast.chosen]
    return settings[settings.index(first) :] if first in settings else settings, estimates


def _save_setting(control: Control, setting: MemorySetting, speaker: int = 0) -> None:
    """Let a later attempt work in this setting, so that it ends in the same bits; one rank writes it."""
    if control.ranks.rank == speaker:
        control.retry(lambda: control.checkpoints.save_setting(setting))


def _tune_in(
    setting: MemorySetting, warm: WarmTuner, control: Control, clip: Clip, config: TuneConfig, resume: TuneState | None
) -> Delta:
    params = control.job.params
    try:
        control.tuner = warm.tuner(setting)
        return control.tuner.tune(
            clip,
            config.model_copy(update={"gradient_checkpointing": setting.gradient_checkpointing}),
            attention=params.attention,
            group_norm=params.group_norm,
            on_step=control.on_step,
            resume=resume,
        )
    except OtherRankFailed:
        control.ranks.share(None)
        raise
    except (AttemptStopped, NodePreempted, RanksApart):
        raise
    except Exception as error:
        failure = error
        if isinstance(error, RuntimeError) and is_out_of_memory(error):  # while the tuner was built
            failure = OutOfMemory(f"the network and its optimizer do not fit the device's memory with {setting.describe()}")
        control.ranks.tell_failure(failure, FLAGS)
        raise
