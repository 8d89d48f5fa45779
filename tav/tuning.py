"""One-shot tuning (Tune-A-Video §3.3): the latent-diffusion loss on one clip, for the tuned tensors alone.

Everything random in step s is drawn from (seed, s, rank), so that a run resumed after step s ends as one left alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from tav.base import Base
from tav.clip import Clip
from tav.config import AttentionMode, GroupNormMode, NetConfig, Progress, TuneConfig
from tav.ddim import forward_diffusion
from tav.delta import Delta, DeltaMeta, Origin
from tav.errors import NanLoss, OutOfMemory
from tav.inflation import VideoUNet, inflate, initial_tensors, is_tuned, shapes_of

OnStep = Callable[[Progress], None]
Draw = tuple[Tensor, Tensor]
"""The posterior's and the diffusion's noise, `[2, 1, 4, F, h, w]`, and the timestep, `[1]`."""

UPDATES = "updates"
"""In an engine's state: how often AdamW has updated, which is less often than there were steps where fp16 overflowed."""
_SCALER = ("scale", "_growth_tracker")
"""What changes in torch's loss scaler."""
GRADIENTS_OVERFLOW = "the gradients overflow fp16 in every step, however little the loss is scaled: use bf16 or fp32 instead"


class Engine(Protocol):
    """What owns the optimizer and, under DeepSpeed, the memory. One engine serves many jobs."""

    def forward(self, latents: Tensor, timesteps: Tensor, text: Tensor) -> Tensor:
        """Return the network's prediction, `[B, 4, F, h, w]`."""
        ...

    def step(self, loss: Tensor) -> None:
        """Run the backward pass, clip the gradients, update, clear the gradients."""
        ...

    def reset(self, tensors: dict[str, Tensor], config: TuneConfig) -> None:
        """Put `tensors` in place of the tuned ones and forget the optimizer's state."""
        ...

    def tuned(self) -> dict[str, Tensor]:
        """Copy the tuned tensors' fp32 masters to the CPU."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Copy the optimizer's and the loss scaler's state to the CPU, keys like `exp_avg/<parameter>`, and `updates`."""
        ...

    def restore(self, state: dict[str, Tensor], step: int) -> None:
        """Take back what `state` gave after `step` steps. Where it does not say how many updates these were, as many."""
        ...


EngineFactory = Callable[[VideoUNet, TuneConfig], Engine]


@dataclass
class TuneState:
    """Enough to go on with a job after `step` steps; fp32 tensors on the CPU."""

    step: int
    tuned: dict[str, Tensor]
    optimizer: dict[str, Tensor]


class AdamWEngine:
    """torch.optim.AdamW in one process, on fp32 masters of the tuned parameters; the network stays in its own type."""

    def __init__(self, net: VideoUNet, config: TuneConfig) -> None:
        self.net = net
        self.params = {n: p for n, p in net.named_parameters() if p.requires_grad}
        self.low_precision = net.dtype != torch.float32
        self.masters = (
            {n: p.detach().float().requires_grad_() for n, p in self.params.items()} if self.low_precision else self.params
        )
        self.on_gpu = net.device.type == "cuda"
        self._begin(config)

    def _begin(self, config: TuneConfig) -> None:
        """Start as if nothing had been tuned before: an earlier job may have ended in the middle of a step."""
        for parameter in (*self.params.values(), *self.masters.values()):
            parameter.grad = None
        self.scaler = torch.amp.GradScaler(self.net.device.type, enabled=self.net.dtype == torch.float16)
        self.max_grad_norm = config.max_grad_norm
        self.optimizer = torch.optim.AdamW(
            self.masters.values(),
            lr=config.learning_rate,
            betas=config.betas,
            weight_decay=config.weight_decay,
            eps=config.eps,
            fused=self.on_gpu,  # on a CPU it gains next to nothing, and gives other bits
        )

    def forward(self, latents: Tensor, timesteps: Tensor, text: Tensor) -> Tensor:
        out: Tensor = self.net(latents, timesteps, text)
        return out

    def step(self, loss: Tensor) -> None:
        self.scaler.scale(loss).backward()
        if self.low_precision:
            for name, parameter in self.params.items():
                self.masters[name].grad = None if parameter.grad is None else parameter.grad.float()
                parameter.grad = None
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.masters.values(), self.max_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.scaler.is_enabled() and self.scaler.get_scale() < 1:  # halved at each overflow, which skips the update
            raise NanLoss(GRADIENTS_OVERFLOW)
        self.optimizer.zero_grad(set_to_none=True)
        self._masters_to_net()

    @torch.no_grad()
    def reset(self, tensors: dict[str, Tensor], config: TuneConfig) -> None:
        for name, master in self.masters.items():
            master.copy_(tensors[name])
        self._masters_to_net()
        self._begin(config)

    def tuned(self) -> dict[str, Tensor]:
        return {name: master.detach().cpu().clone() for name, master in self.masters.items()}

    def state(self) -> dict[str, Tensor]:
        state = {UPDATES: torch.tensor(0.0)}
        for name, master in self.masters.items():
            of_master = self.optimizer.state.get(master, {})  # empty before the first update
            for key in ("exp_avg", "exp_avg_sq"):
                state[f"{key}/{name}"] = of_master.get(key, torch.zeros_like(master)).detach().cpu().clone()
            state[UPDATES] = of_master.get("step", state[UPDATES]).cpu().clone()
        scaler = self.scaler.state_dict()
        return state | {f"scaler/{name}": torch.tensor(float(scaler[name])) for name in _SCALER if scaler}

    def restore(self, state: dict[str, Tensor], step: int) -> None:
        for name, master in self.masters.items():
            moments = {key: state[f"{key}/{name}"].to(master.device, copy=True) for key in ("exp_avg", "exp_avg_sq")}
            count = state.get(UPDATES, torch.tensor(float(step))).clone()
            self.optimizer.state[master] = moments | {
                "step": count.to(master.device) if self.on_gpu else count
            }  # as the fused one
        if self.scaler.is_enabled():
            kept_of_scaler = {name: state[f"scaler/{name}"].item() for name in _SCALER}
            self.scaler.load_state_dict(self.scaler.state_dict() | kept_of_scaler)

    @torch.no_grad()
    def _masters_to_net(self) -> None:
        if self.low_precision:
            for name, parameter in self.params.items():
                parameter.copy_(self.masters[name])


class Tuner:
    """One inflated network and its optimizer, kept warm over many jobs on one base.

    Args:
        base: stays untouched; its frozen tensors are shared.
        engine: makes what owns the optimizer; the default is plain AdamW.
        config: settings the engine starts with; each job brings its own.
        rank: of this process among those that tune the same clip together. Each draws its own noise.
    """

    def __init__(
        self, base: Base, engine: EngineFactory = AdamWEngine, config: TuneConfig | None = None, rank: int = 0
    ) -> None:
        self.base, self.rank = base, rank
        self.net = inflate(base.unet)
        self._base_state, self._shapes = base.unet.state_dict(), shapes_of(self.net)
        for name, parameter in self.net.named_parameters():
            parameter.requires_grad_(is_tuned(name))
        self.engine = engine(self.net, config or TuneConfig())
        self._add_noise = forward_diffusion(base.scheduler_config)
        self._step = 0

    def tune(
        self,
        clip: Clip,
        config: TuneConfig,
        *,
        attention: AttentionMode | None = None,
        group_norm: GroupNormMode | None = None,
        on_step: OnStep | None = None,
        resume: TuneState | None = None,
    ) -> Delta:
        """Tune on one clip from the start, or on from `resume`.

        Args:
            clip: F frames and a caption.
            config: steps, rate, seed and the rest.
            attention: ST-Attn mode; None takes the base's recommendation, then the paper's.
            group_norm: ResNet GroupNorm mode; None as for `attention`.
            on_step: called after every step; `state()` may be called in it, nothing else of the network. What it raises stops
                the work.
            resume: an earlier `state()` of the same clip and config.

        Raises:
            NanLoss: the loss is not finite.
            OutOfMemory: the clip does not fit the device.
        """
        modes = self.base.net_config(attention=attention, group_norm=group_norm)
        with self.net.context.alone():
            return self._tune(clip, config, modes, on_step, resume)

    def _tune(
        self, clip: Clip, config: TuneConfig, modes: NetConfig, on_step: OnStep | None, resume: TuneState | None
    ) -> Delta:
        base, net = self.base, self.net
        net.context.attention, net.context.group_norm = modes.attention, modes.group_norm
        if config.gradient_checkpointing:
            net.enable_gradient_checkpointing()  # non-reentrant: reentrant drops the down blocks' gradients
        else:
            net.disable_gradient_checkpointing()
        self.engine.reset(resume.tuned if resume else initial_tensors(self._base_state, self._shapes, config.seed), config)
        self._step = 0
        if resume:
            self.engine.restore(resume.optimizer, resume.step)
            self._step = resume.step
        mean, std = base.encode_frames(clip.frames)
        text = base.encode_text([clip.caption])
        train_timesteps = base.scheduler_config["num_train_timesteps"]
        draw = draw_step(mean, train_timesteps, config.seed, self._step, self.rank)
        net.train()
        try:
            for step in range(self._step, config.steps):
                began = time.perf_counter()
                loss = self._loss(mean, std, text, draw)
                self.engine.step(loss)
                self._step = step + 1
                # On the host, while the device is at work.
                draw = draw_step(mean, train_timesteps, config.seed, self._step, self.rank)
                value = loss.item()
                if not np.isfinite(value):
                    raise NanLoss(
                        f"the loss became {value} in step {step + 1}: lower the learning rate, "
                        "or use bf16 or fp32 instead of fp16"
                    )
                if on_step:
                    on_step(Progress("tuning", step + 1, config.steps, value, time.perf_counter() - began))
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            frames, (width, height) = len(clip.frames), clip.size
            raise OutOfMemory(
                f"{frames} frames of {width}x{height} do not fit the device's memory: turn on gradient checkpointing, "
                "or use fewer frames or a smaller size"
            ) from error
        finally:
            net.eval()
        meta = DeltaMeta(origin=Origin.of(base, clip), **modes.model_dump(), tune=config)
        return Delta({name: tensor.to(torch.float16) for name, tensor in self.engine.tuned().items()}, meta)

    def _loss(self, mean: Tensor, std: Tensor, text: Tensor, draw: Draw) -> Tensor:
        """Compute the loss on latents `[1, 4, F, h, w]`; the posterior is sampled anew each step, as in the reference."""
        (of_posterior, noise), t = draw
        noised, target = self._add_noise(mean + std * of_posterior, noise, t)
        prediction = self.engine.forward(noised.to(self.base.dtype), t, text)
        return mse_loss(prediction.float(), target.float())

    def state(self) -> TuneState:
        """Copy the running job's state. With several ranks, call it on all of them."""
        return TuneState(self._step, self.engine.tuned(), self.engine.state())


def draw_step(mean: Tensor, train_timesteps: int, seed: int, step: int, rank: int = 0) -> Draw:
    """Draw everything random in one step for latents like `mean`, on its device. Drawn on the CPU: the same on every device."""
    (word,) = np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)
    generator = torch.Generator().manual_seed(int(word))
    noise = torch.randn((2, *mean.shape), generator=generator)
    t = torch.randint(0, train_timesteps, (1,), generator=generator)
    if mean.device.type == "cuda":
        noise, t = noise.pin_memory(), t.pin_memory()  # or the copy would wait for the device
    return noise.to(mean.device, non_blocking=True), t.to(mean.device, non_blocking=True)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Say whether an allocation failed: torch has a type for a GPU's, and only words for a CPU's."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator: can't allocate memory" in str(error)


def tune(
    base: Base,
    clip: Clip,
    config: TuneConfig | None = None,
    *,
    attention: AttentionMode | None = None,
    group_norm: GroupNormMode | None = None,
    on_step: OnStep | None = None,
) -> Delta:
    """Tune once; see `Tuner.tune`. Without `config` the base's recommended one is used."""
    config = config or base.tune_config()
    tuner = Tuner(base, config=config)
    return tuner.tune(clip, config, attention=attention, group_norm=group_norm, on_step=on_step)
