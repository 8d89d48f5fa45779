"""Which rows the network predicts in each sampling step, planned without a network."""

from tav.config import SampleConfig
from tav.sampling import SampleStep, plan_steps

GRID = list(range(91, 0, -10))  # ten steps


def plan(inverted: bool = True, **config: object) -> list[SampleStep]:
    return plan_steps(SampleConfig.model_validate(config), GRID, inverted)


def prompts(steps: list[SampleStep]) -> list[str]:
    return [" ".join(step.prompts) for step in steps]


def test_every_step_is_guided_by_the_paper_s_settings() -> None:
    steps = plan()
    assert [step.timestep for step in steps] == GRID
    assert prompts(steps) == ["negative edit"] * 10
    assert all(step.guided and not step.retrace and not step.inject for step in steps)


def test_a_guidance_scale_of_one_takes_one_row() -> None:
    assert prompts(plan(guidance_scale=1.0)) == ["edit"] * 10


def test_outside_the_guidance_interval_the_prompt_stands_alone() -> None:
    steps = plan(guidance_interval=(0.2, 0.5))
    assert prompts(steps) == ["edit"] * 2 + ["negative edit"] * 3 + ["edit"] * 5


def test_a_strength_below_one_retraces_the_inversion_first() -> None:
    steps = plan(strength=0.7)
    assert prompts(steps) == ["empty"] * 3 + ["negative edit"] * 7
    assert [step.retrace for step in steps] == [True] * 3 + [False] * 7


def test_injection_puts_the_clip_s_own_row_first() -> None:
    steps = plan(feature_injection=0.4)
    assert prompts(steps) == ["empty negative edit"] * 4 + ["negative edit"] * 6
    assert [step.inject for step in steps] == [True] * 4 + [False] * 6


def test_what_is_retraced_is_the_clip_itself_and_needs_no_injection() -> None:
    steps = plan(strength=0.8, feature_injection=0.4)
    assert prompts(steps) == ["empty"] * 2 + ["empty negative edit"] * 2 + ["negative edit"] * 6


def test_with_noise_blended_in_the_clip_is_denoised_beside_from_the_first_step() -> None:
    steps = plan(strength=0.8, feature_injection=0.4, noise_blend=0.1)
    assert prompts(steps) == ["empty empty"] * 2 + ["empty negative edit"] * 2 + ["negative edit"] * 6
    assert not steps[0].guided


def test_from_noise_there_is_nothing_to_retrace_or_inject() -> None:
    assert prompts(plan(inverted=False, strength=0.5, feature_injection=0.5)) == ["negative edit"] * 10
