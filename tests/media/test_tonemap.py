"""The transfer functions give the standards' figures; where nothing is rolled off pictures are as FFmpeg converts them."""

import av
import numpy as np
import pytest
from av.video.reformatter import ColorPrimaries, ColorTrc

from tav.media.tonemap import hlg_light, pq_light, pq_signal, rolled_off, to_bt709

HLG, PQ, SDR = int(ColorTrc.ARIB_STD_B67), int(ColorTrc.SMPTE2084), int(ColorTrc.BT709)
BT2020, P3 = int(ColorPrimaries.BT2020), int(ColorPrimaries.SMPTE432)


def grey(level: float) -> np.ndarray:
    return np.full((1, 1, 3), level, np.float32)


@pytest.mark.parametrize(("signal", "light"), [(0.0, 0), (0.38, 26), (0.5, 50.7), (0.75, 203), (1.0, 1000)])
def test_hlg_gives_the_light_that_bt2408_says(signal: float, light: float) -> None:
    assert hlg_light(grey(signal)) == pytest.approx(light, rel=0.01, abs=0.01)


@pytest.mark.parametrize(("signal", "light"), [(0.0, 0), (0.38, 26), (0.508, 100), (0.58, 203), (0.7518, 1000), (1.0, 10_000)])
def test_pq_gives_the_light_that_bt2408_says(signal: float, light: float) -> None:
    assert pq_light(grey(signal)) == pytest.approx(light, rel=0.015, abs=0.01)
    assert pq_signal(pq_light(grey(signal))) == pytest.approx(signal, abs=1e-4)


def test_light_is_rolled_off_below_white_and_keeps_its_order_and_hue() -> None:
    light = np.linspace(0, 1000, 400, dtype=np.float32)[:, None] * np.array([1, 0.5, 0.25], np.float32)
    shown = rolled_off(light)
    assert (
        (np.diff(shown[:, 0]) > -1e-3).all()
        and (np.diff(shown[:200, 0]) > 0).all()
        and shown.max() == pytest.approx(203, rel=0.01)
    )
    assert shown[:30] == pytest.approx(light[:30], rel=1e-3, abs=1e-3)  # up to 75 cd/m²
    assert shown[1:, 1] / shown[1:, 0] == pytest.approx(0.5, rel=1e-3)


@pytest.mark.parametrize(("transfer", "primaries", "top"), [(HLG, BT2020, 0.55), (SDR, P3, 0.85)])
def test_what_is_not_rolled_off_is_as_ffmpeg_converts_it(transfer: int, primaries: int, top: float) -> None:
    ramp = np.linspace(0.15, top, 24)
    tints = np.array([[1, 1, 1], [1, 0.9, 0.85], [0.85, 0.9, 1], [1, 0.8, 0.9], [0.9, 1, 0.9]])  # inside BT.709
    signal = np.round(ramp[None, :, None] * tints[:, None, :] * 65535).astype(np.uint16)
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(signal), format="rgb48le")
    frame.color_trc, frame.color_primaries, frame.colorspace, frame.color_range = transfer, primaries, 0, 2
    theirs = frame.reformat(format="rgb24", dst_color_trc=ColorTrc.BT709, dst_color_primaries=ColorPrimaries.BT709).to_ndarray()
    assert np.abs(to_bt709(signal, transfer, primaries).astype(int) - theirs).max() <= 2


@pytest.mark.parametrize(("transfer", "white"), [(HLG, 0.75), (PQ, 0.58)])
def test_paper_is_nearly_white_and_what_is_brighter_keeps_its_shades(transfer: int, white: float) -> None:
    paper, sky, sun = (
        int(to_bt709(np.full((1, 1, 3), round(e * 65535), np.uint16), transfer, BT2020)[0, 0, 0])
        for e in (white, white + 0.6 * (0.75 - 0.58), 1.0)
    )
    assert 225 < paper < sky < sun + 1 <= 256
