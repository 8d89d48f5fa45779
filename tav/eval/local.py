"""Makes and scores a suite's videos on this machine, one clip after another or several at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import torch
from pydantic import BaseModel

from tav.base import Base
from tav.config import ClipConfig, InvertConfig, NetConfig, SampleConfig, TuneConfig
from tav.errors import InvalidConfig
from tav.eval.methods import METHODS, Workbench
from tav.eval.methods.text_to_video import TextToVideoModel
from tav.eval.plan import Plan
from tav.eval.report import write_report
from tav.eval.results import Results, Settings
from tav.eval.scores import Scorer
from tav.eval.suite import Suite
from tav.precision import DTYPES

Say = Callable[[str], object]

_SETTINGS: dict[str, type[BaseModel]] = {
    "clip": ClipConfig,
    "net": NetConfig,
    "tune": TuneConfig,
    "invert": InvertConfig,
    "sample": SampleConfig,
}


def run(plan: Plan, command: str, say: Say = print) -> Path:
    """Make what is missing, score it, and write the report.

    Args:
        plan: what to run.
        command: how it was called, for the report.
        say: told what was made.

    Returns:
        Where the report is.

    Raises:
        InvalidConfig: an unknown suite, method or setting, or `plan.out` holds videos of other prompts or settings.
        TavError: what a method raised; what was made by then stays.
    """
    if unknown := set(plan.methods) - set(METHODS):
        raise InvalidConfig(f"there is no method {', '.join(sorted(unknown))}; there are {', '.join(METHODS)}")
    if plan.threads:
        torch.set_num_threads(plan.threads)
    suite, base = plan.load_suite(), load_base(plan)
    results = Results(plan.out, suite, plan.submissions)
    settings = Settings(
        suite=suite.name,
        base=base.name,
        base_fingerprint=base.fingerprint,
        precision=plan.dtype,
        clip=plan.clip_options,
        overrides=plan.overrides,
        text_to_video=plan.text_to_video,
    )
    with results.visit(settings, base.defaults, command, _machine(plan)) as visit:
        visit.made = _make(plan, suite, base, say)
        names = [clip.name for clip in suite.clips]
        results.score_all(plan.videos(suite, names), Scorer(plan.scores, plan.device))
    return write_report(results, plan.videos(suite, names), plan.about({name: METHODS[name].about for name in plan.methods}))


def _make(plan: Plan, suite: Suite, base: Base, say: Say) -> int:
    """Make the videos of all clips, here or in several processes; return how many."""
    names = [clip.name for clip in suite.clips]
    if not plan.methods:
        return 0
    if plan.processes == 1 or len(names) < 2:
        return work(plan, suite, names, base, say)
    shares = [names[i :: plan.processes] for i in range(min(plan.processes, len(names)))]
    with ProcessPoolExecutor(len(shares), mp_context=get_context("spawn")) as pool:
        return sum(pool.map(_work_alone, [(plan, share) for share in shares]))


def _machine(plan: Plan) -> dict[str, str]:
    threads = f"{plan.processes} process(es) of {plan.threads or torch.get_num_threads()} thread(s)"
    card = torch.cuda.get_device_name() if plan.device.startswith("cuda") else ""
    return {"device": plan.device + (f" ({card})" if card else ""), "processes": threads}


def work(plan: Plan, suite: Suite, clips: Sequence[str], base: Base, say: Say = print) -> int:
    """Make and score what is missing of some clips; returns how many videos were made."""
    results, scorer = Results(plan.out, suite), Scorer(plan.scores, plan.device)
    model = TextToVideoModel(plan.text_to_video, base.device, base.dtype) if plan.text_to_video else None
    count = 0
    for name in clips:
        count += make_clip(plan, suite, results, name, base, model, say)
        results.score_all(plan.made_here(suite, name), scorer)
    return count


def _work_alone(share: tuple[Plan, Sequence[str]]) -> int:
    """Make the videos of some clips in a process of its own."""
    plan, clips = share
    if plan.threads:
        torch.set_num_threads(plan.threads)
    return work(plan, plan.load_suite(), clips, load_base(plan))


def load_base(plan: Plan) -> Base:
    """Load the base with the plan's overrides over its recommended settings.

    Raises:
        BaseUnavailable: no such base.
        InvalidConfig: an override that is no setting.
    """
    base = Base.load(plan.base, device=plan.device, dtype=DTYPES[plan.dtype])
    defaults = {part: dict(values) for part, values in base.defaults.items()}
    for name, value in plan.overrides.items():
        part, _, key = name.partition(".")
        if part not in _SETTINGS or key not in _SETTINGS[part].model_fields:
            known = ", ".join(f"{part}.{key}" for part, config in _SETTINGS.items() for key in config.model_fields)
            raise InvalidConfig(f"there is no setting {name}; there are {known}")
        defaults.setdefault(part, {})[key] = value
    for part, config in _SETTINGS.items():
        try:
            config(**defaults.get(part, {}))
        except InvalidConfig as error:
            raise InvalidConfig(f"{part}.{error}") from None
    return replace(base, defaults=defaults)


def make_clip(
    plan: Plan, suite: Suite, results: Results, name: str, base: Base, model: TextToVideoModel | None, say: Say
) -> int:
    """Make what is missing of one clip; returns how many videos."""
    clip, count = suite.clip(name), 0
    preparing: list[float] = []
    bench = Workbench(base, plan.out / "work", lambda progress: preparing.append(progress.seconds), model)
    for method, case in plan.made_here(suite, name):
        if results.is_there(method, case):
            continue
        preparing.clear()
        began = time.perf_counter()
        video = METHODS[method].sample(bench, clip, case)
        seconds = time.perf_counter() - began - sum(preparing)
        results.keep(method, case, video, seconds, sum(preparing))
        count += 1
        say(f"{name} {case.edit} seed {case.seed} {method}: {seconds:.1f} s")
    return count
