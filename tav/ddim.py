"""The deterministic DDIM step (Song et al. 2021, Eq. 12 with eta 0), one function for both directions.

Sampling goes from t to t - 1000/n with the prediction made at t. Inversion retraces the same grid upwards: from
t - 1000/n to t with the prediction made at t, as the reference does. Below zero the final alpha is used.
"""

from __future__ import annotations

from typing import Any

from diffusers import DDIMScheduler
from torch import Tensor

from tav.errors import InvalidConfig


class DDIM:
    """A base's noise schedule on a grid of n steps.

    Args:
        scheduler_config: the base's scheduler folder content, any diffusers scheduler.
        num_inference_steps: n, 1 … the number of training timesteps.
    """

    def __init__(self, scheduler_config: dict[str, Any], num_inference_steps: int) -> None:
        scheduler = DDIMScheduler.from_config(scheduler_config)
        self.prediction_type: str = scheduler.config.prediction_type
        if self.prediction_type not in ("epsilon", "v_prediction"):
            raise InvalidConfig(
                f"prediction type {self.prediction_type!r} is not supported: use an epsilon or v-prediction base"
            )
        self._alphas = scheduler.alphas_cumprod.double()
        self._final_alpha = float(scheduler.final_alpha_cumprod)
        self._stride = scheduler.config.num_train_timesteps // num_inference_steps
        offset = scheduler.config.steps_offset
        last = scheduler.config.num_train_timesteps - 1
        self.timesteps: list[int] = [min(i * self._stride + offset, last) for i in reversed(range(num_inference_steps))]
        """Descending, e.g. 901, 801, …, 1 for n = 10."""

    def _alpha(self, t: int) -> float:
        return float(self._alphas[t]) if t >= 0 else self._final_alpha

    def _move(self, x: Tensor, prediction: Tensor, alpha: float, alpha_to: float) -> Tensor:
        a, s = alpha**0.5, (1 - alpha) ** 0.5
        x32, p32 = x.float(), prediction.float()
        if self.prediction_type == "epsilon":
            noise, clean = p32, (x32 - s * p32) / a
        else:
            noise, clean = a * p32 + s * x32, a * x32 - s * p32
        return (alpha_to**0.5 * clean + (1 - alpha_to) ** 0.5 * noise).to(x.dtype)

    def down(self, x: Tensor, prediction: Tensor, t: int) -> Tensor:
        """One sampling step, from t to the next lower grid point."""
        return self._move(x, prediction, self._alpha(t), self._alpha(t - self._stride))

    def up(self, x: Tensor, prediction: Tensor, t: int) -> Tensor:
        """One inversion step, from the next lower grid point up to t, with the prediction made at t."""
        return self._move(x, prediction, self._alpha(t - self._stride), self._alpha(t))


def add_noise(scheduler_config: dict[str, Any], clean: Tensor, noise: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Forward diffusion: the noised latents at `t` `[B]`, and what the network should predict there."""
    scheduler = DDIMScheduler.from_config(scheduler_config)
    target = noise if scheduler.config.prediction_type == "epsilon" else scheduler.get_velocity(clean, noise, t)
    return scheduler.add_noise(clean, noise, t), target
