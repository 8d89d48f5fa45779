"""Flow, warping error and agreement of motion, on pictures whose motion is known."""

import numpy as np
import pytest

from tav.errors import InvalidConfig
from tav.eval.flow import flow_scores, grey_of, optical_flow, seen_in_both, warp
from tests.eval.conftest import pan, texture


def test_the_flow_of_a_panned_picture_is_its_pan() -> None:
    grey = grey_of(pan(texture(), 3, -2))
    inner = optical_flow(grey[0], grey[1])[16:-16, 16:-16]
    assert np.abs(inner - (3, -2)).max() < 0.25


def test_warping_the_next_frame_back_gives_the_first() -> None:
    frames = pan(texture(), 3, 2).astype(np.float32)
    flow = np.full((128, 128, 2), (3, 2), np.float32)
    np.testing.assert_allclose(warp(frames[1], flow)[:-2, :-3], frames[0][:-2, :-3], atol=1e-3)


def test_what_leaves_the_picture_is_not_seen_in_both() -> None:
    forth, back = np.full((64, 64, 2), (4, 0), np.float32), np.full((64, 64, 2), (-4, 0), np.float32)
    seen = seen_in_both(forth, back)
    assert seen[:, :60].all()
    assert not seen[:, 60:].any()


def test_flows_that_do_not_lead_back_are_occluded() -> None:
    flow = np.full((64, 64, 2), (4, 0), np.float32)
    assert not seen_in_both(flow, flow).any()


def test_a_panned_picture_has_no_warping_error_and_flicker_has_what_it_adds() -> None:
    moving = pan(texture(), 2, 1, num_frames=6)
    dim = (moving * 0.8).astype(np.uint8)
    flickering = dim.copy()
    flickering[::2] += 20  # every pixel changes by 20 between any two frames
    assert flow_scores(dim).warping_error < 0.1
    assert flow_scores(flickering).warping_error == pytest.approx(1000 * (20 / 255) ** 2, rel=0.25)


def test_a_still_video_has_no_warping_error_at_all() -> None:
    assert flow_scores(pan(texture(), 0, 0)).warping_error == 0


def test_noise_has_a_large_warping_error_though_its_flow_is_nowhere_consistent() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    assert flow_scores(noise).warping_error > 10


def test_the_same_motion_agrees_whatever_the_colours() -> None:
    source = pan(texture(), 3, 1)
    assert flow_scores(source, source).flow_agreement == pytest.approx(1)
    repainted = 255 - source[..., [2, 0, 1]]
    assert flow_scores(repainted, source).flow_agreement > 0.95


def test_a_still_an_unlike_and_an_opposite_motion_disagree() -> None:
    source = pan(texture(), 3, 0)
    still = flow_scores(pan(texture(), 0, 0), source).flow_agreement
    across = flow_scores(pan(texture(), 0, 3), source).flow_agreement
    opposite = flow_scores(pan(texture(), -3, 0), source).flow_agreement
    assert still == pytest.approx(0, abs=0.05)
    assert across == pytest.approx(0, abs=0.1)
    assert opposite == pytest.approx(-1, abs=0.1)


def test_two_still_videos_agree() -> None:
    assert flow_scores(pan(texture(1), 0, 0), pan(texture(2), 0, 0)).flow_agreement == pytest.approx(1)


def test_agreement_falls_as_the_speed_departs_from_the_sources() -> None:
    source = pan(texture(), 4, 0)
    agreements = [flow_scores(pan(texture(), speed, 0), source).flow_agreement for speed in (4, 3, 2, 1)]
    assert agreements == sorted(agreements, reverse=True)
    assert agreements[2] == pytest.approx(1 - 4 / 20, abs=0.05)  # 1 − |2−4|² / (2² + 4²)


def test_frame_size_hardly_changes_a_score() -> None:
    large = pan(texture(), 4, 2)
    small = large.reshape(len(large), 64, 2, 64, 2, 3).mean((2, 4)).astype(np.uint8)
    source = {"large": large, "small": small}
    errors = {name: flow_scores(frames).warping_error for name, frames in source.items()}
    assert errors["large"] == pytest.approx(errors["small"], abs=0.1)


def test_grey_tells_apart_colours_of_one_luminance() -> None:
    frames = np.full((1, 32, 32, 3), (100, 100, 100), np.uint8)
    frames[:, 8:24, 8:24] = (167, 60, 145)  # luminance 100 too, within a level or two
    grey = grey_of(frames)[0]
    assert abs(int(grey[16, 16]) - int(grey[0, 0])) == 255


def test_one_frame_and_another_shape_are_refused_with_what_to_give() -> None:
    frames = pan(texture(), 1, 1)
    with pytest.raises(InvalidConfig, match="two frames or more"):
        flow_scores(frames[:1])
    with pytest.raises(InvalidConfig, match="the source has 3 frames of 128x128, the video 4 frames of 128x128"):
        flow_scores(frames, frames[:3])
