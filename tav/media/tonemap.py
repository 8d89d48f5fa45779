"""High dynamic range and wide gamuts, as a BT.709 display shows them.

Transfer functions of ITU-R BT.2100, the roll-off of BT.2390 (its EETF), reference white at 203 cd/m² as in BT.2408: a sheet of
paper comes out nearly white, and what is brighter keeps its shades above it.
"""

from __future__ import annotations

import numpy as np
from av.video.reformatter import ColorPrimaries, ColorTrc
from numpy.typing import NDArray

Signal = NDArray[np.uint16]
Light = NDArray[np.float32]

HDR: dict[int, str] = {int(ColorTrc.ARIB_STD_B67): "HLG", int(ColorTrc.SMPTE2084): "PQ"}
"""Transfer functions that are tone-mapped, by FFmpeg's numbers."""
WIDE: dict[int, str] = {int(ColorPrimaries.BT2020): "BT.2020", int(ColorPrimaries.SMPTE432): "Display P3"}
"""Primaries that are converted, by FFmpeg's numbers."""

WHITE = 203.0
"""cd/m² of reference white in HDR, which becomes the display's white."""
PEAK = 1000.0
"""cd/m² of the display that HLG is meant for, and that PQ is mostly graded on."""
_GAMMA = 2.4  # BT.1886
_LUMA = np.array([0.2627, 0.6780, 0.0593], np.float32)  # BT.2020

_TO_709 = {
    int(ColorPrimaries.BT2020): [[1.66049, -0.58764, -0.07285], [-0.12455, 1.13290, -0.00835], [-0.01815, -0.10058, 1.11873]],
    int(ColorPrimaries.SMPTE432): [[1.22494, -0.22494, 0.0], [-0.04206, 1.04206, 0.0], [-0.01964, -0.07864, 1.09827]],
}


def to_bt709(signal: Signal, transfer: int, primaries: int) -> NDArray[np.uint8]:
    """Map full-range R'G'B' to what a BT.709 display shows.

    Args:
        signal: uint16 `[H, W, 3]`.
        transfer: FFmpeg's number of the transfer function; those not in `HDR` are taken for BT.1886.
        primaries: FFmpeg's number; HDR without wide primaries said is BT.2020, as the standard has it.

    Returns:
        uint8 `[H, W, 3]`.
    """
    e: Light = (signal / np.float32(65535)).astype(np.float32)
    kind = HDR.get(transfer)
    if kind and primaries not in WIDE:
        primaries = int(ColorPrimaries.BT2020)
    light = rolled_off(hlg_light(e) if kind == "HLG" else pq_light(e)) / WHITE if kind else e**_GAMMA
    if primaries in WIDE:
        light = light @ np.array(_TO_709[primaries], np.float32).T
    shown: NDArray[np.uint8] = np.rint(255 * np.clip(light, 0, 1) ** (1 / _GAMMA)).astype(np.uint8)
    return shown


def hlg_light(e: Light) -> Light:
    """Return the display light in cd/m² of an HLG signal in 0–1, `[…, 3]`, on a display of `PEAK` (BT.2100: inverse OETF,
    OOTF)."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(e <= 0.5, e * e / 3, (np.exp((e - c) / a) + b) / 12)
    luma = (scene @ _LUMA)[..., None]
    return np.asarray(PEAK * luma**0.2 * scene, np.float32)


_M1, _M2 = 2610 / 16384, 2523 / 4096 * 128
_C1, _C2, _C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32


def pq_light(e: Light) -> Light:
    """Return the light in cd/m² of a PQ signal in 0–1 (BT.2100: EOTF)."""
    root = np.clip(e, 0, 1) ** (1 / _M2)
    return np.asarray(10_000 * (np.maximum(root - _C1, 0) / (_C2 - _C3 * root)) ** (1 / _M1), np.float32)


def pq_signal(light: Light) -> Light:
    """Return the PQ signal of light in cd/m², the inverse of `pq_light`."""
    y = np.clip(light / 10_000, 0, 1) ** _M1
    return np.asarray(((_C1 + _C2 * y) / (1 + _C3 * y)) ** _M2, np.float32)


def rolled_off(light: Light) -> Light:
    """Bring light up to `PEAK` below `WHITE`; hues stay, dark and middle tones are left as they are (BT.2390 §5.4.1)."""
    source, target = pq_signal(np.array([PEAK, WHITE], np.float32))
    brightest = light.max(-1, keepdims=True)
    e = np.minimum(pq_signal(brightest) / source, 1)
    most = target / source
    knee = 1.5 * most - 0.5
    t = np.clip((e - knee) / (1 - knee), 0, 1)
    bent = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (3 * t**2 - 2 * t**3) * most
    to = pq_light(np.where(e < knee, e, bent) * source)
    return np.asarray(light * (to / np.maximum(brightest, 1e-6)), np.float32)
