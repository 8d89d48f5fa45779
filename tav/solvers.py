"""From noise to a video in fewer steps: diffusers' second-order multistep solvers, on even steps.

They integrate the same differential equation as DDIM, which is their first-order case, so the same inverted latents lead
to the same clip; `python -m benchmarks.solvers` measures how exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler, UniPCMultistepScheduler
from torch import Tensor

from tav.config import SchedulerName
from tav.ddim import DDIM

Step = Callable[[Tensor, Tensor, int], Tensor]
"""(latents in fp32, prediction, timestep) -> latents at the next lower grid point."""

# The last step, often a long one in log-SNR, is of first order: UniPC's way, and more accurate there in DPM-Solver++, too.
_SOLVERS = {"dpmpp_2m": partial(DPMSolverMultistepScheduler, euler_at_final=True), "unipc": UniPCMultistepScheduler}
_ZERO_SNR_ALPHA = 2.0**-24  # in place of 0, whose log-SNR is infinite; diffusers' choice


def solver(ddim: DDIM, name: SchedulerName, first: int = 0) -> Step:
    """Make the step function of one pass over a grid.

    Args:
        ddim: the schedule and grid; a multistep solver wants an `even` one.
        name: `ddim`, or a multistep solver, which remembers earlier predictions: call it once for each timestep, in order.
        first: index of the timestep it begins at. It remembers nothing of what came before, so a change of prompt belongs here.
    """
    if name == "ddim":
        return ddim.down
    grid = ddim.timesteps[first:]
    scheduler = _SOLVERS[name](
        num_train_timesteps=len(ddim.betas),
        trained_betas=ddim.betas.clamp(max=1 - _ZERO_SNR_ALPHA).numpy(),
        prediction_type=ddim.prediction_type,
        solver_order=2,
        final_sigmas_type="zero" if ddim.alpha(-1) == 1 else "sigma_min",
    )
    scheduler.set_timesteps(len(grid))
    # Its own grid would begin and end elsewhere than the inversion's.
    alphas = np.array([max(ddim.alpha(t), _ZERO_SNR_ALPHA) for t in [*grid, -1]])
    scheduler.sigmas = torch.from_numpy(np.sqrt((1 - alphas) / alphas)).float()
    scheduler.timesteps = torch.tensor(grid)
    scheduler.set_begin_index(0)

    def step(x: Tensor, prediction: Tensor, t: int) -> Tensor:
        moved: Tensor = scheduler.step(prediction.float(), t, x).prev_sample
        return moved

    return step
