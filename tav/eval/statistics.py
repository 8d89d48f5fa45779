"""Means over videos, and how sure they are: over clips, because the edits of one clip stand or fall together.

Of 30 clips and more, by the bootstrap; of fewer, whose bootstrap intervals are too narrow, by Student's t.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from tav.eval.results import Record
from tav.eval.suite import RECONSTRUCTION, Measure

RESAMPLES = 2000
FEWEST_TO_RESAMPLE = 30
"""Clips; a bootstrap of six covers the true mean in 86 of 100 cases, not in 95."""
CONFIDENCE = 0.95
ALL_EDITS = "all edits"
"""The row of everything but the clips' own captions."""


@dataclass(frozen=True)
class Estimate:
    """A mean over videos."""

    mean: float
    low: float | None
    """Ends of the 95 % interval; None where there is one clip only."""
    high: float | None
    worst: float
    """Of the single videos."""
    videos: int
    clips: int


def estimate(values: Sequence[tuple[str, float]], better: str = "higher") -> Estimate:
    """Mean and interval.

    Args:
        values: `(clip, score)` of each video, at least one.
        better: `higher` or `lower`, to tell which is worst.
    """
    scores = np.array([score for _, score in values])
    names = sorted({clip for clip, _ in values})
    low = high = None
    if len(names) > 1:
        where = np.array([names.index(clip) for clip, _ in values])
        sums, counts = np.bincount(where, scores).astype(np.float64), np.bincount(where)
        if len(names) < FEWEST_TO_RESAMPLE:
            low, high = _students_t(sums, counts)
        else:
            low, high = (float(end) for end in np.quantile(_resampled_means(sums, counts), _ENDS))
    worst = scores.min() if better == "higher" else scores.max()
    return Estimate(float(scores.mean()), low, high, float(worst), len(scores), len(names))


_ENDS = ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)


def _students_t(sums: NDArray[np.float64], counts: NDArray[np.intp]) -> tuple[float, float]:
    """Return the ends of the interval of a mean over videos, by how the clips' sums scatter about what it gives them."""
    clips, mean = len(sums), sums.sum() / counts.sum()
    error = np.sqrt(clips / (clips - 1) * ((sums - mean * counts) ** 2).sum()) / counts.sum()
    half = float(stdtrit(clips - 1, _ENDS[1]) * error)
    return float(mean) - half, float(mean) + half


def _resampled_means(sums: NDArray[np.float64], counts: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return means over videos of the clips drawn, with replacement, `[RESAMPLES]`."""
    drawn = np.random.default_rng(0).integers(0, len(sums), (RESAMPLES, len(sums)))
    return np.asarray(sums[drawn].sum(1) / counts[drawn].sum(1))


Table = dict[str, dict[str, dict[str, Estimate]]]
"""method -> category -> measure -> estimate."""


def table(records: Sequence[Record], measures: Sequence[Measure]) -> Table:
    """Average each method on each category, and on all edits together."""
    return {
        method: _by_category([r for r in records if r.method == method], measures, lambda r, m: (r.scores or {}).get(m))
        for method in dict.fromkeys(r.method for r in records)
    }


def differences(records: Sequence[Record], measures: Sequence[Measure], reference: str) -> Table:
    """Return how much each other method differs from `reference` on the same cases, method minus reference."""
    known = {(r.clip, r.edit, r.seed): r.scores or {} for r in records if r.method == reference}

    def difference(record: Record, measure: str) -> float | None:
        ours, theirs = (record.scores or {}).get(measure), known.get((record.clip, record.edit, record.seed), {}).get(measure)
        return None if ours is None or theirs is None else ours - theirs

    others = [method for method in dict.fromkeys(r.method for r in records) if method != reference]
    return {method: _by_category([r for r in records if r.method == method], measures, difference) for method in others}


def _by_category(
    records: Sequence[Record], measures: Sequence[Measure], value: Callable[[Record, str], float | None]
) -> dict[str, dict[str, Estimate]]:
    groups = {
        category: [r for r in records if r.category == category] for category in dict.fromkeys(r.category for r in records)
    }
    if edits := [r for r in records if r.category != RECONSTRUCTION]:
        groups[ALL_EDITS] = edits
    return {category: dict(_estimates(group, measures, value)) for category, group in groups.items()}


def _estimates(
    group: Sequence[Record], measures: Sequence[Measure], value: Callable[[Record, str], float | None]
) -> Iterable[tuple[str, Estimate]]:
    for measure in measures:
        values = [(r.clip, score) for r in group if (score := value(r, measure.name)) is not None]
        if values:
            yield measure.name, estimate(values, measure.better)
