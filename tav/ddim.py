"""The deterministic DDIM step (Song et al. 2021, Eq. 12 with eta 0), one function for both directions.

Sampling goes from a grid point t to the next lower one with the prediction made at t. Inversion retraces the same grid
upwards: from the next lower point to t with the prediction made at t, as the reference does. Below the grid lies the
schedule's final alpha.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from diffusers import DDIMScheduler
from torch import Tensor

from tav.errors import InvalidConfig

Noising = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


class DDIM:
    """A base's noise schedule on a grid of n steps.

    Args:
        scheduler_config: the base's scheduler folder content, any diffusers scheduler. Its `timestep_spacing` (leading,
            trailing, linspace) and `rescale_betas_zero_snr` are obeyed.
        num_inference_steps: n, 1 … the number of training timesteps.
        start: where the grid begins, instead of where n steps of this schedule do: inverted latents hold the noise of the
            timestep at which their inversion ended, and only from there do they lead back to the clip.
        even: steps of equal length all the way from the start to zero, as multistep solvers need them. DDIM's own grid may end
            in a step that is short in time but, in noise, long.

    Raises:
        InvalidConfig: a schedule or prediction type that cannot be sampled so.
    """

    def __init__(
        self, scheduler_config: dict[str, Any], num_inference_steps: int, start: int | None = None, even: bool = False
    ) -> None:
        scheduler = DDIMScheduler.from_config(scheduler_config)
        train_timesteps: int = scheduler.config.num_train_timesteps
        if num_inference_steps > train_timesteps:
            raise InvalidConfig(f"{num_inference_steps} steps are more than the {train_timesteps} of the base: ask for fewer")
        scheduler.set_timesteps(num_inference_steps)
        timesteps = np.minimum(scheduler.timesteps.numpy(), train_timesteps - 1)
        if even:
            timesteps = (
                np.linspace(train_timesteps - 1 if start is None else start, 0, num_inference_steps + 1)[:-1]
                .round()
                .astype(int)
            )
        elif start is not None and start != timesteps[0]:
            timesteps = np.linspace(start, min(start, timesteps[-1]), num_inference_steps).round().astype(int)
        self.timesteps: list[int] = np.unique(timesteps)[::-1].tolist()
        """Descending, e.g. 901, 801, …, 1 for n = 10. Where n is near the number of training timesteps, a few less than n."""
        self.prediction_type: str = scheduler.config.prediction_type
        self.betas: Tensor = scheduler.betas
        self._alphas = scheduler.alphas_cumprod.double()
        self._final_alpha = float(scheduler.final_alpha_cumprod)
        self._lower = dict(zip(self.timesteps, [*self.timesteps[1:], -1], strict=True))
        if self.prediction_type not in ("epsilon", "v_prediction"):
            raise InvalidConfig(
                f"prediction type {self.prediction_type!r} is not supported: use an epsilon or v-prediction base"
            )
        if self.prediction_type == "epsilon" and self.alpha(self.timesteps[0]) == 0:
            raise InvalidConfig(
                "at zero terminal SNR noise says nothing about the picture: set the base's scheduler to v_prediction, "
                "or its rescale_betas_zero_snr to false"
            )

    def alpha(self, t: int) -> float:
        """Return the share of the clean latents' variance at timestep `t`; below zero the schedule's final one."""
        return float(self._alphas[t]) if t >= 0 else self._final_alpha

    def down(self, x: Tensor, prediction: Tensor, t: int) -> Tensor:
        """Take one sampling step, from t to the next lower grid point."""
        (a, s), (a_to, s_to) = self._scales(t), self._scales(self._lower[t])
        x32, p32 = x.float(), prediction.float()
        if self.prediction_type == "epsilon":
            noise, clean = p32, (x32 - s * p32) / a
        else:
            noise, clean = a * p32 + s * x32, a * x32 - s * p32
        return (a_to * clean + s_to * noise).to(x.dtype)

    def up(self, x: Tensor, prediction: Tensor, t: int) -> Tensor:
        """Take one inversion step, from the next lower grid point up to t: what `down` with the same prediction undoes."""
        (a, s), (a_from, s_from) = self._scales(t), self._scales(self._lower[t])
        x32, p32 = x.float(), prediction.float()
        if self.prediction_type == "epsilon":
            above = a * ((x32 - s_from * p32) / a_from) + s * p32
        else:
            above = (x32 - (s_from * a - a_from * s) * p32) / (a_from * a + s_from * s)
        return above.to(x.dtype)

    def _scales(self, t: int) -> tuple[float, float]:
        """Return the scales of the clean latents and of the noise, whose squares sum to 1."""
        alpha = self.alpha(t)
        return alpha**0.5, (1 - alpha) ** 0.5


def forward_diffusion(scheduler_config: dict[str, Any]) -> Noising:
    """Make a base's forward diffusion: `(clean, noise, t [B])` -> (noised latents, what the network should predict there)."""
    scheduler = DDIMScheduler.from_config(scheduler_config)

    def add_noise(clean: Tensor, noise: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        target = noise if scheduler.config.prediction_type == "epsilon" else scheduler.get_velocity(clean, noise, t)
        return scheduler.add_noise(clean, noise, t), target

    return add_noise
