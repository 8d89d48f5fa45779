"""Peak memory and time of tuning, inversion and sampling, predicted before they are paid for."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Literal, NamedTuple

from pydantic import BaseModel

from tav.config import AttentionMode
from tav.estimate.device import Device, measurements
from tav.estimate.profile import Cost, Profile
from tav.memory import MemorySetting, Precision
from tav.vae import FRAMES_AT_ONCE

Phase = Literal["tuning", "inversion", "sampling"]
_GATHERED = 100_000_000  # parameters that the engine's stage 3 keeps whole at a time; a quarter fills its gradient bucket
_UNMEASURED_MARGIN = 0.15  # of memory, on devices that no run was measured on


class Work(BaseModel):
    """What is to be done."""

    frames: int
    width: int
    height: int
    """In pixels."""
    steps: int = 500
    """Of tuning."""
    inversion_steps: int = 50
    sampling_steps: int = 50
    videos: int = 1
    """Sampled with guidance; may be 0."""
    attention: AttentionMode = "sparse_causal"
    ranks: int = 1


class PhaseEstimate(BaseModel):
    """One phase."""

    peak_memory_bytes: int
    seconds: float


class Estimate(BaseModel):
    """Of one piece of work in one memory setting on one device."""

    memory: MemorySetting
    device: str
    device_memory_bytes: int
    peak_memory_bytes: int
    """The largest of the phases'."""
    host_memory_bytes: int
    """What offloading keeps in host memory besides."""
    seconds: float
    """Of all phases together; loading, uploads and waiting are not counted."""
    fits: bool
    """Also if the peak is larger by `memory_error`."""
    phases: dict[Phase, PhaseEstimate]
    memory_error: float | None
    """The largest on measured runs that the model had not seen, as a part of what was measured; None: no run was ever
    measured on such a device."""
    time_error: float | None
    """As `memory_error`, of the time."""


class Calibration(BaseModel):
    """What real runs on one kind of device taught about the counts."""

    fixed_bytes: float
    """The process or device context itself."""
    activation_factor: float
    """Real bytes per counted byte of activations and gradients."""
    compute_factor: float
    """Seconds per second that matrix products of as many operations take. The other factors alike."""
    attention_factor: float
    traffic_factor: float
    operation_factor: float
    optimizer_factor: float
    """How often a step goes over a tuned parameter's master, moments and gradient."""
    gather_factor: float
    """Operations that stage 3 does for each of the network's tensors in each pass."""
    memory_error: float | None
    time_error: float | None


class StepWork(NamedTuple):
    """Of one step, in seconds that the device would need if it were as fast as its bare figures."""

    compute: float
    attention: float
    traffic: float
    operations: float
    optimizer: float
    gathers: float


class PhaseWork(NamedTuple):
    """One phase, counted."""

    activation_bytes: float
    held_bytes: float
    """Parameters and optimizer state on the device."""
    once: StepWork
    """The VAE's part."""
    step: StepWork
    steps: int


def estimate(profile: Profile, work: Work, memory: MemorySetting, device: Device) -> Estimate:
    """Predict one piece of work.

    Args:
        profile: of the base's architecture.
        work: frames, size, steps.
        memory: with its precision.
        device: where, in that precision.
    """
    model = calibration(device.kind)
    phases = {
        phase: PhaseEstimate(
            peak_memory_bytes=int(model.fixed_bytes + part.held_bytes + model.activation_factor * part.activation_bytes),
            seconds=seconds_of(part.once, model) + part.steps * seconds_of(part.step, model),
        )
        for phase, part in phase_work(profile, work, memory, device).items()
    }
    peak = max(phase.peak_memory_bytes for phase in phases.values())
    margin = _UNMEASURED_MARGIN if model.memory_error is None else model.memory_error
    return Estimate(
        memory=memory,
        device=device.name,
        device_memory_bytes=device.memory_bytes,
        peak_memory_bytes=peak,
        host_memory_bytes=0 if device.kind == "cpu" else int(_held(profile, memory, work.ranks)[1]),
        seconds=sum(phase.seconds for phase in phases.values()),
        fits=peak * (1 + margin) <= device.memory_bytes,
        phases=phases,
        memory_error=model.memory_error,
        time_error=model.time_error,
    )


def fastest_that_fits(profile: Profile, work: Work, ladder: Sequence[MemorySetting], device: Device) -> int:
    """Return the place of the fastest setting of a ladder that fits; of the last one, the leanest, if none does."""
    estimates = [estimate(profile, work, memory, device) for memory in ladder]
    fitting = [place for place, entry in enumerate(estimates) if entry.fits]
    return min(fitting, key=lambda place: estimates[place].seconds, default=len(ladder) - 1)


def phase_work(profile: Profile, work: Work, memory: MemorySetting, device: Device) -> dict[Phase, PhaseWork]:
    """Count what each phase does and holds, before any calibration."""
    pixels = (work.width // profile.scale) * (work.height // profile.scale)
    chunk, chunks = min(work.frames, FRAMES_AT_ONCE), -(-work.frames // FRAMES_AT_ONCE)
    width = bytes_per_value(memory.precision)

    def cost(kind: str, frames: int = work.frames) -> Cost:
        return profile.passes[kind].cost(frames, pixels, work.attention)

    def bare(cost: Cost, times: int = 1) -> StepWork:
        return bare_step(cost, width, device, times)

    once = cost("inference")
    guided = once.of_rows(2)
    tuning = cost("tuning_checkpointed" if memory.gradient_checkpointing else "tuning")
    held, host = _held(profile, memory, work.ranks)
    bucket = min(profile.tuned, _GATHERED // 4) * width
    gathered = lent = 0.0
    if memory.zero_stage == 3:  # its network cannot be called outside tuning: another one inverts and samples
        gathered = min(profile.frozen + profile.tuned, _GATHERED) * width
        lent = (profile.frozen + profile.originals + profile.tuned) * width
    if device.kind == "cpu":  # device and host memory are one, and the other network shares its tensors
        held, host = held + host, 0.0
        lent = min(lent, profile.tuned * width)
    at_hand = device.kind == "cpu" or not memory.offload_optimizer
    resting = held - (profile.tuned * 8 / work.ranks if at_hand else 0.0)  # a tuner keeps AdamW's moments while it tunes
    encoding, decoding = cost("encoding", chunk), cost("decoding", chunk)

    def phase(pass_: Cost, vae: Cost, step: StepWork, steps: int, beside: float) -> PhaseWork:
        activations = max(pass_.peak_bytes, vae.peak_bytes) * width / 4
        return PhaseWork(activations, beside, bare(vae, chunks), step, steps)

    phases: dict[Phase, PhaseWork] = {
        "tuning": phase(
            tuning, encoding, _with_optimizer(bare(tuning), profile, memory, device), work.steps, held + bucket + gathered
        ),
        "inversion": phase(once, encoding, bare(once), work.inversion_steps, resting + lent),
    }
    if work.videos:
        sampling = phase(guided, decoding, bare(guided), work.videos * work.sampling_steps, resting + lent)
        phases["sampling"] = sampling._replace(once=bare(decoding, chunks * work.videos))
    return phases


def bare_step(cost: Cost, width: int, device: Device, times: int = 1) -> StepWork:
    """Count `times` passes with values of `width` bytes, as if the device were as fast as its bare figures."""
    return StepWork(
        times * cost.flops / device.flops,
        times * cost.attention / device.attention,
        times * cost.traffic_bytes * width / 4 / device.bandwidth,
        times * cost.operations * device.operation_seconds,
        0.0,
        0.0,
    )


def _with_optimizer(step: StepWork, profile: Profile, memory: MemorySetting, device: Device) -> StepWork:
    """Make a pass a tuning step: add AdamW's update, and what travels between device and host."""
    width = bytes_per_value(memory.precision)
    passes = 3 if memory.gradient_checkpointing else 2
    host = memory.offload_optimizer
    step = step._replace(optimizer=profile.tuned * 16 / (device.link if host else device.bandwidth))
    travels = profile.tuned * (4 + width) if host else 0.0  # gradients there, parameters back
    seconds = travels / device.link
    if memory.zero_stage == 3:
        link = device.link if memory.offload_params else device.bandwidth
        seconds += passes * (profile.frozen + profile.tuned) * width / link
        step = step._replace(gathers=passes * profile.tensors * device.operation_seconds)
    return step._replace(traffic=step.traffic + seconds)


def _held(profile: Profile, memory: MemorySetting, ranks: int) -> tuple[float, float]:
    """Count the bytes that lie on the device, and in host memory, all through a job: parameters and the optimizer's state.

    AdamW in mixed precision takes a master copy and two moments in fp32. The gradients are among the counted activations.
    """
    width = bytes_per_value(memory.precision)
    network = (profile.frozen + profile.tuned) * width
    optimizer = profile.tuned * 12 / ranks
    device, host = (profile.vae_size + profile.text_size) * float(width), 0.0
    if memory.zero_stage < 3:
        device += network + profile.originals * width
    else:
        host += (profile.frozen + profile.originals) * width  # the original, which starts the next network
        if memory.offload_params:
            host += network / ranks
        else:
            device += network / ranks
    if memory.offload_optimizer:
        return device, host + optimizer + profile.tuned * 4 / ranks  # gradients gather there too
    return device + optimizer, host


def bytes_per_value(precision: Precision | None) -> int:
    """Return the bytes of one parameter or activation."""
    return 4 if precision == "fp32" else 2


def seconds_of(work: StepWork, model: Calibration) -> float:
    return (
        model.compute_factor * work.compute
        + model.attention_factor * work.attention
        + model.traffic_factor * work.traffic
        + model.operation_factor * work.operations
        + model.optimizer_factor * work.optimizer
        + model.gather_factor * work.gathers
    )


@cache
def calibration(kind: str) -> Calibration:
    """Read the packaged calibration of one kind of device."""
    return Calibration.model_validate(measurements()["calibrations"][kind])
