"""Peak memory and time of one video, predicted before it is drawn, and how much of it a device has room for."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import BaseModel

from tav.config import AttentionMode, SampleConfig
from tav.estimate.device import Device
from tav.estimate.model import bare_step, bytes_per_value, calibration, seconds_of
from tav.estimate.profile import Profile
from tav.memory import Precision
from tav.vae import FRAMES_AT_ONCE, SCALE

_COPIES = 4
"""Of the finished pictures, 3 bytes a pixel: decoded, made contiguous, scored, encoded."""
_SCORED_PIXELS = 256 * 1024
"""Of a frame at most, 4 bytes each: see `tav.eval.flow`."""
_SHALLOW = 0.1
"""Of a whole pass: one that reuses its deep features."""


class VideoWork(BaseModel):
    """One video."""

    frames: int
    width: int
    height: int
    """In pixels."""
    steps: int
    guided: float
    """Share of the steps with guidance, which take two rows."""
    injected: float
    """Share of the steps in which the source is computed beside."""
    cache_interval: int = 1
    attention: AttentionMode = "sparse_causal"

    @classmethod
    def of(
        cls,
        config: SampleConfig,
        frames: int,
        size: tuple[int, int],
        inverted: bool,
        attention: AttentionMode = "sparse_causal",
    ) -> VideoWork:
        """Return the work of sampling by a configuration.

        Args:
            config: with the base's recommended values in place.
            frames, size: of the tuned clip; the configuration's own replace them.
            inverted: whether it starts from inverted latents.
            attention: of the delta.
        """
        width, height = config.size or size
        begin, end = config.guidance_interval
        return cls(
            frames=config.num_frames or frames,
            width=width,
            height=height,
            steps=config.num_inference_steps,
            guided=end - begin if config.guidance_scale > 1 else 0.0,
            injected=config.feature_injection if inverted else 0.0,
            cache_interval=config.cache_interval,
            attention=attention,
        )


class VideoEstimate(BaseModel):
    """Of one video on one device."""

    peak_memory_bytes: int
    """Of the device; on a CPU, of the process."""
    host_memory_bytes: int
    """Of the finished pictures, where the device has a memory of its own."""
    seconds: float
    device_memory_bytes: int
    fits: bool
    """Also if the peak is larger by the model's error; where no run was ever measured, by its bare prediction."""


def estimate_video(profile: Profile, work: VideoWork, precision: Precision, device: Device, beside: int = 0) -> VideoEstimate:
    """Predict one video.

    Args:
        profile: of the base's architecture; its inference and decoding are looked at.
        work: see `VideoWork`.
        precision: of the base.
        device: where, in that precision.
        beside: bytes of deltas that are kept on the device.
    """
    model, width = calibration(device.kind), bytes_per_value(precision)
    pixels = (work.width // profile.scale) * (work.height // profile.scale)
    chunk, chunks = min(work.frames, FRAMES_AT_ONCE), -(-work.frames // FRAMES_AT_ONCE)
    one = profile.passes["inference"].cost(work.frames, pixels, work.attention)
    decoding = profile.passes["decoding"].cost(chunk, pixels)
    rows = 1 + (work.guided > 0) + (work.injected > 0)
    activations = max(rows * one.peak_bytes, decoding.peak_bytes) * width / 4
    held = (profile.frozen + profile.originals + profile.tuned + profile.vae_size + profile.text_size) * width
    area = work.width * work.height
    pictures = work.frames * (_COPIES * 3 * area + 4 * _SCORED_PIXELS)
    peak = int(model.fixed_bytes + held + beside + model.activation_factor * activations)
    if device.kind == "cpu":
        peak, pictures = peak + pictures, 0

    def step(rows: int) -> float:
        return seconds_of(bare_step(one.of_rows(rows), width, device), model)

    # By the steps' mean number of rows: what is more than a plain pass grows with it.
    mean = step(1) + (work.guided + work.injected) * (step(2) - step(1))
    whole = 1 / work.cache_interval
    seconds = work.steps * mean * (whole + (1 - whole) * _SHALLOW) + seconds_of(
        bare_step(decoding, width, device, chunks), model
    )
    return VideoEstimate(
        peak_memory_bytes=peak,
        host_memory_bytes=pictures,
        seconds=seconds,
        device_memory_bytes=device.memory_bytes,
        fits=peak * (1 + (model.memory_error or 0.0)) <= device.memory_bytes,
    )


def largest_that_fits(work: VideoWork, fits: Callable[[VideoWork], bool]) -> tuple[int, tuple[int, int]]:
    """Find how many frames there is room for at the work's size, and at what size there is room for all of them.

    Args:
        work: what does not fit.
        fits: says so of any other; of less than what fits, too.

    Returns:
        Frames, and width and height in multiples of 8 in about the work's proportions; 0 and (0, 0) where nothing fits.
    """

    def sized(share: float) -> VideoWork:
        width, height = (max(SCALE, int(side * share) // SCALE * SCALE) for side in (work.width, work.height))
        return work.model_copy(update={"width": width, "height": height})

    frames = _last(work.frames, lambda n: fits(work.model_copy(update={"frames": n})))
    parts = max(work.width, work.height) // SCALE
    side = _last(parts, lambda n: fits(sized(n / parts)))
    smaller = sized(side / parts)
    return frames, (smaller.width, smaller.height) if side else (0, 0)


def _last(end: int, holds: Callable[[int], bool]) -> int:
    """Find the largest n in 1…end that `holds`, which no larger one does; 0: none."""
    low, high = 0, end
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if holds(middle) else (low, middle - 1)
    return low
