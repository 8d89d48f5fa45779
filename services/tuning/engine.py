"""DeepSpeed as the method's engine: ZeRO shards optimizer states (1) and gradients (2) over the ranks."""

from __future__ import annotations

import deepspeed
import torch
from deepspeed.utils import safe_get_full_optimizer_state, safe_set_full_optimizer_state
from torch import Tensor

from tav.config import TuneConfig
from tav.inflation import VideoUNet

_MOMENTS = ("exp_avg", "exp_avg_sq")


class DeepSpeedEngine:
    """One DeepSpeed engine for the life of a tuner.

    `deepspeed.initialize` leaves hooks on the parameters it is given, so a tuner calls it once; a new job overwrites the
    tuned tensors in place and forgets the optimizer's state.

    Args:
        net: whose parameters that require gradients are tuned; torch.distributed must be initialised.
        config: the first job's.
        zero_stage: 1 or 2.
    """

    def __init__(self, net: VideoUNet, config: TuneConfig, zero_stage: int) -> None:
        self.params = {n: p for n, p in net.named_parameters() if p.requires_grad}
        optimizer = torch.optim.AdamW(self.params.values(), lr=config.learning_rate)
        self.engine, *_ = deepspeed.initialize(
            model=net,
            optimizer=optimizer,
            model_parameters=list(self.params.values()),
            dist_init_required=False,
            config={
                "train_micro_batch_size_per_gpu": 1,
                "gradient_clipping": config.max_grad_norm,
                "zero_optimization": {"stage": zero_stage},
                "zero_allow_untested_optimizer": True,  # it lists its own optimizers only; AdamW is elementwise, hence safe
                "steps_per_print": 2**31,
            },
        )

        self._allocate_state()

    def _allocate_state(self) -> None:
        # AdamW makes its state in its first step; a job that resumes must find it before that. `reset` clears it.
        zero = self.engine.optimizer
        for partition in zero.single_partition_of_fp32_groups:
            partition.grad = torch.zeros_like(partition)
        zero.optimizer.step()
        for partition in zero.single_partition_of_fp32_groups:
            partition.grad = None
        zero._lazy_init_hp_params_optimizer_state()

    def forward(self, latents: Tensor, timesteps: Tensor, text: Tensor) -> Tensor:
        out: Tensor = self.engine(latents, timesteps, text)
        return out

    def step(self, loss: Tensor) -> None:
        self.engine.backward(loss)
        self.engine.step()

    @torch.no_grad()
    def reset(self, tensors: dict[str, Tensor], config: TuneConfig) -> None:
        for name, parameter in self.params.items():
            parameter.copy_(tensors[name])
        zero = self.engine.optimizer
        zero.refresh_fp32_params()
        zero.clip_grad = config.max_grad_norm
        zero.zero_grad(set_to_none=True)
        for group in zero.optimizer.param_groups:
            group.update(lr=config.learning_rate, betas=config.betas, weight_decay=config.weight_decay, eps=config.eps)
        for value in self._optimizer_tensors():
            value.zero_()

    def state(self) -> dict[str, Tensor]:
        return {
            f"{moment}/{name}": safe_get_full_optimizer_state(parameter, moment).cpu().clone()
            for name, parameter in self.params.items()
            for moment in _MOMENTS
        }

    @torch.no_grad()
    def restore(self, state: dict[str, Tensor], step: int) -> None:
        for name, parameter in self.params.items():
            for moment in _MOMENTS:
                safe_set_full_optimizer_state(parameter, state[f"{moment}/{name}"], moment)
        for values in self.engine.optimizer.optimizer.state.values():
            values["step"].fill_(step)

    def _optimizer_tensors(self) -> list[Tensor]:
        states = self.engine.optimizer.optimizer.state.values()
        return [value for values in states for value in values.values() if isinstance(value, Tensor)]
