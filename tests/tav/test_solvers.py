"""The samplers, and where they start."""

import pytest
import torch

import tav
from tav import Base, Clip, Delta, InvertConfig, Latents, SampleConfig, TuneConfig
from tav.config import SchedulerName
from tav.ddim import DDIM
from tav.errors import InvalidConfig
from tav.solvers import solver
from tav.video import Frames
from tests.tav.conftest import SCHEDULER
from tests.tav.conftest import SD21_SCHEDULER as SD21

MEAN, DEVIATION = 0.7, 0.3
STEPS = 3


def predict(ddim: DDIM, x: torch.Tensor, t: int) -> torch.Tensor:
    """The exact prediction for pictures whose every value is drawn from N(MEAN, DEVIATION²)."""
    alpha = ddim.alpha(t)
    off = (x - alpha**0.5 * MEAN) / (alpha * DEVIATION**2 + 1 - alpha)
    noise, clean = (1 - alpha) ** 0.5 * off, MEAN + alpha**0.5 * DEVIATION**2 * off
    return noise if ddim.prediction_type == "epsilon" else alpha**0.5 * noise - (1 - alpha) ** 0.5 * clean


def sampled(ddim: DDIM, name: SchedulerName, x: torch.Tensor) -> torch.Tensor:
    step = solver(ddim, name)
    for t in ddim.timesteps:
        x = step(x, predict(ddim, x, t), t)
    return x


def exact(ddim: DDIM, x: torch.Tensor) -> torch.Tensor:
    """Where the differential equation that all samplers integrate leads from `x`."""
    (first, last) = (ddim.alpha(ddim.timesteps[0]), ddim.alpha(-1))
    deviation = [(alpha * DEVIATION**2 + 1 - alpha) ** 0.5 for alpha in (first, last)]
    return last**0.5 * MEAN + deviation[1] / deviation[0] * (x - first**0.5 * MEAN)


@pytest.mark.parametrize("schedule", [SCHEDULER, SD21, SCHEDULER | {"set_alpha_to_one": True}])
@pytest.mark.parametrize("steps", [10, 30])
def test_the_multistep_solvers_come_closer_to_the_exact_solution_than_ddim(schedule: dict, steps: int) -> None:
    grid = DDIM(schedule, steps, even=True)
    x = torch.randn(1, 4, 2, 3, 5, generator=torch.Generator().manual_seed(0))
    error = {name: (sampled(grid, name, x) - exact(grid, x)).abs().mean() for name in ("ddim", "dpmpp_2m", "unipc")}
    assert max(error["dpmpp_2m"], error["unipc"]) < error["ddim"]


@pytest.mark.parametrize("name", ["ddim", "dpmpp_2m", "unipc"])
@pytest.mark.parametrize("steps", [1, 2, 1000])
def test_any_number_of_steps_stays_finite(name: SchedulerName, steps: int) -> None:
    for schedule in (SCHEDULER, SD21, SCHEDULER | {"timestep_spacing": "linspace"}):
        ddim = DDIM(schedule, steps, even=name != "ddim")
        assert sampled(ddim, name, torch.randn(1, 4, 1, 2, 2)).isfinite().all()


def test_the_bases_timestep_spacing_and_zero_snr_are_obeyed() -> None:
    ddim = DDIM(SD21, 10)
    assert ddim.timesteps == [999, 899, 799, 699, 599, 499, 399, 299, 199, 99]
    assert ddim.alpha(999) == 0
    with pytest.raises(InvalidConfig, match="v_prediction"):
        DDIM(SD21 | {"prediction_type": "epsilon"}, 10)


def test_a_grid_may_begin_where_an_inversion_ended() -> None:
    own = DDIM(SCHEDULER, 30)
    assert own.timesteps[0] == 958
    assert DDIM(SCHEDULER, 30, start=958).timesteps == own.timesteps
    assert DDIM(SCHEDULER, 5, start=958).timesteps == [958, 719, 480, 240, 1]
    assert DDIM(SCHEDULER, 5).timesteps[0] == 801
    assert DDIM(SCHEDULER, 5, start=958, even=True).timesteps == [958, 766, 575, 383, 192]
    assert DDIM(SCHEDULER, 5, even=True).timesteps[0] == 999


@pytest.mark.parametrize("name", ["ddim", "dpmpp_2m", "unipc"])
def test_inverted_latents_lead_back_from_the_timestep_where_their_inversion_ended(name: SchedulerName) -> None:
    clean = MEAN + DEVIATION * torch.randn(1, 4, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    inversion = DDIM(SCHEDULER, 200)
    x = clean
    for t in reversed(inversion.timesteps):
        x = inversion.up(x, predict(inversion, x, t), t)
    there, elsewhere = (DDIM(SCHEDULER, 100, start, even=name != "ddim") for start in (inversion.timesteps[0], 801))
    error = [(sampled(grid, name, x) - clean).abs().mean() for grid in (there, elsewhere)]
    assert error[0] < 0.02 < error[1]


@pytest.fixture(scope="module")
def delta(base: Base, clip: Clip) -> Delta:
    return tav.tune(base, clip, TuneConfig(steps=2, learning_rate=1e-3))


@pytest.fixture(scope="module")
def noise(base: Base, clip: Clip, delta: Delta) -> Latents:
    return tav.invert(base, clip, delta, InvertConfig(num_inference_steps=STEPS))


@pytest.fixture(scope="module")
def sampler(base: Base) -> tav.Sampler:
    return tav.Sampler(base)


def draw(sampler: tav.Sampler, delta: Delta, latents: Latents | None, prompt: str = "blue", **config: object) -> Frames:
    settings = SampleConfig(**{"num_inference_steps": STEPS, "guidance_scale": 2, **config})
    return sampler.sample(prompt, delta=delta, latents=latents, config=settings).frames


@pytest.mark.parametrize("name", ["dpmpp_2m", "unipc"])
def test_a_multistep_solver_is_reproducible_and_retraces(
    sampler: tav.Sampler, delta: Delta, noise: Latents, name: SchedulerName
) -> None:
    first = draw(sampler, delta, noise, scheduler=name)
    assert (draw(sampler, delta, noise, scheduler=name) == first).all()
    assert (draw(sampler, delta, noise) != first).any()
    assert (draw(sampler, delta, noise, "red", scheduler=name) != first).any()
    retraced = draw(sampler, delta, noise, scheduler=name, strength=0.1)  # all steps: the prompt has no say
    assert (draw(sampler, delta, noise, "red", scheduler=name, strength=0.1) == retraced).all()


def test_other_step_counts_than_the_inversions_start_at_its_end(sampler: tav.Sampler, delta: Delta, noise: Latents) -> None:
    seen: list[int] = []
    sampler.net.register_forward_pre_hook(lambda _, inputs: seen.append(int(inputs[1])))
    draw(sampler, delta, noise, num_inference_steps=2)
    assert seen == [667, 1]
    draw(sampler, delta, None, num_inference_steps=2)
    assert seen[2:] == [501, 1]
    draw(sampler, delta, noise, num_inference_steps=2, scheduler="unipc")
    assert seen[4:] == [667, 334]


def test_a_blend_goes_from_the_inverted_latents_to_pure_noise(sampler: tav.Sampler, delta: Delta, noise: Latents) -> None:
    inverted, random = draw(sampler, delta, noise, seed=5), draw(sampler, delta, None, seed=5)
    half = draw(sampler, delta, noise, seed=5, noise_blend=0.5)
    assert (draw(sampler, delta, noise, seed=5, noise_blend=0.0) == inverted).all()
    assert (draw(sampler, delta, noise, seed=5, noise_blend=1.0) == random).all()
    assert (half != inverted).any() and (half != random).any()
    assert (draw(sampler, delta, noise, seed=6, noise_blend=0.5) != half).any()


def test_a_blend_keeps_the_variance(sampler: tav.Sampler, delta: Delta, noise: Latents) -> None:
    unit = Latents(torch.randn(1, 4, 5, 64, 64), noise.meta.model_copy(deep=True))
    unit.meta.origin.size = (128, 128)
    for blend in (0.2, 0.5, 0.9):
        start = sampler._start(delta, unit, SampleConfig(noise_blend=blend))
        assert start.std().item() == pytest.approx(1, abs=0.01)


def test_a_blend_without_inverted_latents_is_refused(sampler: tav.Sampler, delta: Delta) -> None:
    with pytest.raises(InvalidConfig, match="noise_blend"):
        draw(sampler, delta, None, noise_blend=0.5)
