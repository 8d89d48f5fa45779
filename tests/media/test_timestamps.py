"""Which frames of a file become a clip, and at which rate they play."""

import numpy as np
import pytest

from tav.errors import InvalidClip
from tav.media.timestamps import Timing, frame_indices


@pytest.mark.parametrize("rate", [8, 12, 24, 25, 29.97, 30, 50, 59.94, 60])
@pytest.mark.parametrize("tick", [0, 0.001])
@pytest.mark.parametrize(("count", "wanted", "start"), [(91, 24, 0), (186, 32, 7), (24, 8, 0), (1798, 32, 1)])
def test_at_an_even_rate_frames_are_chosen_by_their_numbers(
    rate: float, tick: float, count: int, wanted: int, start: int
) -> None:
    times = np.arange(count) / rate
    timing = Timing(list((times / tick).round() * tick if tick else times), said_rate=rate)
    indices = timing.choose(wanted, start)
    assert indices == frame_indices(count, wanted, start) and timing.notes == []
    assert timing.rate == rate and timing.rate_of(indices) == rate / ((indices[-1] - indices[0]) / (wanted - 1))


def test_a_rate_that_is_not_the_frames_is_not_believed() -> None:
    assert Timing([i / 30 for i in range(60)], said_rate=8).rate == pytest.approx(30)
    assert Timing([i / 30 for i in range(60)]).duration == pytest.approx(2)


def test_at_a_varying_rate_frames_are_chosen_by_time() -> None:
    times = [*np.arange(0, 1, 1 / 60), 1, 2, 3, 4, *np.arange(5, 6, 1 / 60)]
    timing = Timing(list(times))
    chosen = [times[i] for i in timing.choose(8)]
    assert chosen == pytest.approx([0, 0.85, 2, 3, 3, 4, 5.13, 5.98], abs=0.01)
    assert 7 / timing.rate_of(timing.choose(8)) == pytest.approx(times[-1])
    assert timing.choose(3, 0, 2) == [0, 2, 4]  # a stride counts frames
    assert timing.choose(len(times)) == list(range(len(times)))
    with pytest.raises(InvalidClip, match="too few"):
        timing.choose(len(times) + 1)


def test_every_chosen_frame_is_the_nearest_to_its_moment() -> None:
    rng = np.random.default_rng(3)
    for _ in range(50):
        times = np.cumsum(rng.choice([0.02, 0.033, 0.04, 0.05, 0.09], rng.integers(40, 300)))
        start, wanted = int(rng.integers(0, 8)), int(rng.integers(2, 24))
        timing = Timing(list(times))
        indices = timing.choose(wanted, start)
        moments = np.linspace(times[start], times[-1], wanted)
        assert indices == sorted(indices) and (indices[0], indices[-1]) == (start, len(times) - 1)
        assert np.abs(times[indices] - moments) == pytest.approx(np.abs(times[:, None] - moments).min(0))


@pytest.mark.parametrize(
    "times", [[1.0, 0.5, 1.5, 0.0, 2.0], [0.0, 0.0, 0.0, 0.0, 0.0], [None] * 5, [0.0, None, 1.0, 1.5, 2.0]]
)
def test_where_times_do_not_grow_the_order_counts(times: list[float | None]) -> None:
    timing = Timing(times, said_rate=2)
    assert timing.choose(5) == [0, 1, 2, 3, 4] and timing.rate == 2 and timing.duration == 2.5
    assert timing.notes == ["presentation times do not grow: frames taken in their order"]


def test_a_file_that_says_nothing_of_time_says_so() -> None:
    timing = Timing([None] * 16)
    assert timing.rate == 8 and any("8 frames a second" in note for note in timing.notes)
