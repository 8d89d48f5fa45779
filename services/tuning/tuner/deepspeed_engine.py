"""DeepSpeed as the method's engine: ZeRO shards states (1), gradients (2), parameters (3) over the ranks, or offloads them."""

from __future__ import annotations

import gc
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import deepspeed
import torch
from deepspeed.runtime.zero import parameter_offload
from deepspeed.runtime.zero.linear import zero3_linear_wrap
from deepspeed.runtime.zero.partitioned_param_coordinator import PartitionedParameterCoordinator
from deepspeed.utils import (
    safe_get_full_fp32_param,
    safe_get_full_optimizer_state,
    safe_set_full_fp32_param,
    safe_set_full_optimizer_state,
    safe_set_local_fp32_param,
    safe_set_local_optimizer_state,
)
from torch import Tensor
from torch.nn.functional import pad

from tav.config import TuneConfig
from tav.errors import NanLoss
from tav.inflation import VideoUNet
from tav.memory import MemorySetting
from tav.tuning import GRADIENTS_OVERFLOW, UPDATES

_MOMENTS = ("exp_avg", "exp_avg_sq")
_GATHERED = 100_000_000
"""Parameters that stage 3 keeps whole at a time: a ninth of SD1.4's."""
_params_to_release = inspect.getclosurevars(
    PartitionedParameterCoordinator._PartitionedParameterCoordinator__params_to_release
).nonlocals["func"]
"""A cached method: its cache holds the objects that it was called on."""
_SCALER = ("cur_scale", "cur_iter", "last_overflow_iter", "cur_hysteresis")


class DeepSpeedEngine:
    """One DeepSpeed engine, reset from job to job.

    `deepspeed.initialize` leaves hooks on the parameters it is given, so a network serves one engine for life; another
    setting takes a newly inflated one. The fp32 masters belong to the optimizer; fp16 scales the loss dynamically.

    Args:
        net: whose parameters that require gradients are tuned; torch.distributed must be initialised. Under stage 3 it
            cannot be called but through this engine, on all ranks together.
        config: the first job's.
        setting: without its checkpointing, which the network switches; its precision must be the network's.
    """

    def __init__(self, net: VideoUNet, config: TuneConfig, setting: MemorySetting) -> None:
        self.setting = setting
        self.params = {n: p for n, p in net.named_parameters() if p.requires_grad}
        # On the host torch's fused AdamW is vectorised and multi-threaded, and unlike DeepSpeed's own is not compiled. Of a
        # network on the CPU it gains next to nothing, and gives other bits.
        fused = setting.offload_optimizer or net.device.type == "cuda"
        optimizer = torch.optim.AdamW(self.params.values(), lr=config.learning_rate, fused=fused)
        self.engine, *_ = deepspeed.initialize(
            model=net,
            optimizer=optimizer,
            model_parameters=list(self.params.values()),
            dist_init_required=False,
            config=_deepspeed_config(setting, config, sum(p.numel() for p in self.params.values())),
        )
        self.zero = self.engine.optimizer
        if setting.precision == "fp16":
            self.zero.loss_scaler.raise_error_at_min_scale = False  # `step` says what to try instead
        self._allocate_state()

    def close(self) -> None:
        """Remove the hooks and free all tensors; the network is of no use afterwards."""
        net, optimizer = self.engine.module, self.zero.optimizer
        holders = [getattr(self.zero, "parameter_offload", None), self.zero]
        self.engine.destroy()
        # Stage 3 refers to itself from every parameter, and autograd's nodes hold parameters where the collector does not look:
        # what it holds is freed piece by piece.
        for parameter in net.parameters():
            vars(parameter).clear()
            parameter.data = torch.empty(0)
        for holder in holders:
            if holder is not None:
                vars(holder).clear()
        optimizer.state.clear()
        optimizer.param_groups.clear()
        self.params.clear()
        del self.engine, self.zero
        # Two globals of stage 3 live as long as the process and hold every network that it has had.
        parameter_offload.FWD_MODULE_STACK.clear()
        _params_to_release.cache_clear()
        gc.collect()

    def forward(self, latents: Tensor, timesteps: Tensor, text: Tensor) -> Tensor:
        with self._lean_linear():
            out: Tensor = self.engine(latents, timesteps, text)
        return out

    def step(self, loss: Tensor) -> None:
        with self._lean_linear():  # checkpointing runs the forward pass again
            self.engine.backward(loss)
        scaler = self.zero.loss_scaler
        scale = scaler.cur_scale
        self.engine.step()
        if not self.zero.overflow:
            return
        # DeepSpeed has skipped the update, on all ranks alike; fp16 goes on with a smaller scale, if there is one.
        if self.setting.precision != "fp16":
            raise NanLoss("the gradients are not finite: lower the learning rate")
        if scale <= scaler.min_scale:
            raise NanLoss(GRADIENTS_OVERFLOW)

    @torch.no_grad()
    def reset(self, tensors: dict[str, Tensor], config: TuneConfig) -> None:
        self.zero.clip_grad = config.max_grad_norm
        self.zero.zero_grad(set_to_none=True)
        for group in self.zero.optimizer.param_groups:
            group.update(lr=config.learning_rate, betas=config.betas, weight_decay=config.weight_decay, eps=config.eps)
        for moment in self._moment_tensors():
            if moment.untyped_storage().nbytes() == 0:  # see `rest`
                moment.untyped_storage().resize_(moment.nbytes)
        for value in self._optimizer_tensors():
            value.zero_()
        self._set_scaler(self._first_scaler)
        self._write(tensors, None)
        self._masters_to_net()

    def rest(self) -> None:
        """Free the memory of AdamW's moments, until the next `reset`; there is no `state` meanwhile.

        Their storages are emptied, not replaced: DeepSpeed keeps views of them.
        """
        for moment in self._moment_tensors():
            moment.untyped_storage().resize_(0)

    def tuned(self) -> dict[str, Tensor]:
        return {name: safe_get_full_fp32_param(parameter).cpu().clone() for name, parameter in self.params.items()}

    def state(self) -> dict[str, Tensor]:
        moments = {
            f"{moment}/{name}": safe_get_full_optimizer_state(parameter, moment).cpu().clone()
            for name, parameter in self.params.items()
            for moment in _MOMENTS
        }
        (updates, *_) = (values["step"] for values in self.zero.optimizer.state.values())
        return moments | self._scaler() | {UPDATES: updates.detach().float().cpu().reshape(()).clone()}

    @torch.no_grad()
    def restore(self, state: dict[str, Tensor], step: int) -> None:
        for moment in _MOMENTS:
            self._write({name: state[f"{moment}/{name}"] for name in self.params}, moment)
        for values in self.zero.optimizer.state.values():
            values["step"].fill_(state[UPDATES].item() if UPDATES in state else step)
        self._set_scaler(state)

    @contextmanager
    def _lean_linear(self) -> Iterator[None]:
        """Under stage 3, use a linear layer that does not keep its gathered weight until the backward pass.

        DeepSpeed would replace torch's for the rest of the process, which changes other networks' last digits.
        """
        own = torch.nn.functional.linear
        if self.setting.zero_stage == 3:
            torch.nn.functional.linear = zero3_linear_wrap
        try:
            yield
        finally:
            torch.nn.functional.linear = own

    def _allocate_state(self) -> None:
        # AdamW makes its state in its first step; a job that resumes must find it before that. `reset` clears it.
        if self.setting.zero_stage == 3:
            partitions = self.zero.fp32_partitioned_groups_flat
        else:
            partitions = self.zero.single_partition_of_fp32_groups
        grads = [partition.grad for partition in partitions]
        for partition in partitions:
            partition.grad = torch.zeros_like(partition)
        if self.setting.zero_stage == 3:
            for number in range(len(partitions)):
                self.zero._optimizer_step(number)
        else:
            self.zero.optimizer.step()
            self.zero._lazy_init_hp_params_optimizer_state()
        for partition, grad in zip(partitions, grads, strict=True):
            partition.grad = grad
        self._first_scaler = self._scaler()

    def _write(self, tensors: dict[str, Tensor], moment: str | None) -> None:
        """Write the masters (None) or one of AdamW's moments; each rank keeps its part."""
        for name, parameter in self.params.items():
            value = tensors[name].to(self.engine.device, torch.float32)
            if self.setting.zero_stage == 3:
                part = parameter.ds_tensor.numel()  # of equal parts, the last one padded
                world = torch.distributed.get_world_size()
                flat = pad(value.flatten(), (0, part * world - value.numel()))
                local = flat.narrow(0, part * torch.distributed.get_rank(), part)
                if moment is None:
                    safe_set_local_fp32_param(parameter, local)
                else:
                    safe_set_local_optimizer_state(parameter, local, moment)
            elif moment is None:
                safe_set_full_fp32_param(parameter, value)
            else:
                safe_set_full_optimizer_state(parameter, value, moment)

    def _masters_to_net(self) -> None:
        if self.setting.zero_stage < 3:
            self.zero.update_lp_params()
            return
        for number in range(len(self.zero.fp32_partitioned_groups_flat)):
            self.zero._reassign_or_swap_out_partitioned_parameters(number)
        if small := self.zero.persistent_parameters:  # these stay whole between passes
            small[0].partition(small)
            small[0].all_gather(small)

    def _optimizer_tensors(self) -> list[Tensor]:
        states = self.zero.optimizer.state.values()
        return [value for values in states for value in values.values() if isinstance(value, Tensor)]

    def _moment_tensors(self) -> list[Tensor]:
        return [values[name] for values in self.zero.optimizer.state.values() for name in _MOMENTS]

    def _scaler(self) -> dict[str, Tensor]:
        """Return the state of dynamic loss scaling; empty except in fp16."""
        if self.setting.precision != "fp16":
            return {}
        scaler = self.zero.loss_scaler
        return {f"scaler/{name}": torch.tensor(float(getattr(scaler, name))) for name in _SCALER}

    def _set_scaler(self, state: dict[str, Tensor]) -> None:
        if self.setting.precision == "fp16":
            scaler = self.zero.loss_scaler
            for name in _SCALER:
                value = state.get(f"scaler/{name}", self._first_scaler[f"scaler/{name}"]).item()
                setattr(scaler, name, value if name == "cur_scale" else int(value))


def _deepspeed_config(setting: MemorySetting, config: TuneConfig, tuned: int) -> dict[str, Any]:
    zero: dict[str, Any] = {"stage": setting.zero_stage, "memory_efficient_linear": False}  # see `_lean_linear`
    zero["reduce_bucket_size"] = min(_GATHERED // 4, tuned)  # a buffer in each step; by default half a billion elements
    if setting.zero_stage == 3:
        # By default it keeps a billion gathered parameters, which are all of a Stable Diffusion.
        zero |= {"stage3_max_live_parameters": _GATHERED, "stage3_max_reuse_distance": _GATHERED}
        zero["stage3_prefetch_bucket_size"] = _GATHERED // 4
    if setting.offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu"}
    if setting.offload_params:
        zero["offload_param"] = {"device": "cpu"}
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_clipping": config.max_grad_norm,
        "zero_optimization": zero,
        "bf16": {"enabled": setting.precision == "bf16"},
        "fp16": {"enabled": setting.precision == "fp16"},
        "zero_allow_untested_optimizer": True,  # it lists its own optimizers only; AdamW is elementwise, hence safe
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 2**31,
    }
