"""The method itself, and what is left of it without one of its parts."""

from __future__ import annotations

from dataclasses import dataclass

from tav.config import AttentionMode
from tav.eval.methods.workbench import Workbench
from tav.eval.suite import Case, SuiteClip
from tav.video import Video


@dataclass(frozen=True)
class Tuned:
    """Tune, invert, sample."""

    name: str
    about: str
    attention: AttentionMode | None = None
    """ST-Attn mode; None takes the base's recommendation."""
    inverted: bool = True
    """Start from inverted latents, or else from noise drawn from the case's seed."""

    def sample(self, bench: Workbench, clip: SuiteClip, case: Case) -> Video:
        """See `Method.sample`."""
        delta = bench.tuned(clip, case.seed, self.attention)
        latents = bench.inverted(clip, delta, f"seed{case.seed}") if self.inverted else None
        config = bench.base.sample_config(seed=case.seed)
        return bench.sampler.sample(case.prompt, delta=delta, latents=latents, config=config)


@dataclass(frozen=True)
class Untuned:
    """Invert and sample under the inflated base. Nothing is random: every seed gives the same video."""

    name: str
    about: str

    def sample(self, bench: Workbench, clip: SuiteClip, case: Case) -> Video:
        """See `Method.sample`."""
        delta = bench.untuned(clip)
        return bench.sampler.sample(case.prompt, delta=delta, latents=bench.inverted(clip, delta, "untuned"))
