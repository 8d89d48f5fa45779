"""Typed settings of tuning, inversion and sampling; the defaults are the paper's (§5 and its reference code)."""

from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from tav.errors import InvalidConfig
from tav.sentences import sentence

AttentionMode = Literal["sparse_causal", "causal", "full", "frame"]
GroupNormMode = Literal["video", "frame"]
SchedulerName = Literal["ddim", "dpmpp_2m", "unipc"]


class Config(BaseModel):
    """Settings that somebody writes: called with values that will not do it raises `InvalidConfig`, which says what would.

    `model_validate` raises pydantic's own error, for those who read settings from a file and have more to say.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    def __init__(self, **values: Any) -> None:
        """Raises:
        InvalidConfig: names every value at fault.
        """
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise InvalidConfig(sentence(error, type(self))) from None

    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]  # models that hold one validate it as any other


class NetConfig(Config):
    """How the base is inflated. A delta keeps what it was made with."""

    attention: AttentionMode = "sparse_causal"
    """Which frames answer in ST-Attn."""
    group_norm: GroupNormMode = "video"
    """ResNet GroupNorm's statistics: over the whole video, as the reference, or per frame, as the base was trained."""


class ClipConfig(Config):
    """Which frames of the source become the clip."""

    num_frames: int = Field(32, ge=1)
    size: tuple[int, int] = (512, 512)
    """`(width, height)` in pixels; multiples of 8."""
    start: int = Field(0, ge=0)
    """First source frame."""
    stride: int | None = Field(None, ge=1)
    """Every n-th source frame; None spreads the frames evenly."""


class TuneConfig(Config):
    """AdamW on the tuned tensors, constant rate, batch 1."""

    steps: int = Field(500, ge=1)
    learning_rate: float = Field(3e-5, gt=0)
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = Field(1e-2, ge=0)
    eps: float = Field(1e-8, gt=0)
    max_grad_norm: float = Field(1.0, gt=0)
    seed: int = Field(0, ge=0, lt=2**63)
    gradient_checkpointing: bool = False


class InvertConfig(Config):
    """DDIM inversion: empty prompt, no guidance."""

    num_inference_steps: int = Field(50, ge=1, le=1000)


class SampleConfig(Config):
    """Deterministic sampling with classifier-free guidance."""

    scheduler: SchedulerName = "ddim"
    """`ddim` (eta 0) is the paper's and the inversion's own; `dpmpp_2m` (DPM-Solver++ 2M) and `unipc`, multistep solvers of
    second order, need fewer steps."""
    num_inference_steps: int = Field(50, ge=1, le=1000)
    """From inverted latents the steps are spread from where the inversion ended, however many it took."""
    guidance_scale: float = Field(12.5, ge=1)
    """1 turns guidance off."""
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    """From and until which share of the steps there is guidance (Kynkäänniemi et al. 2024); the others follow the prompt
    alone, at half the cost."""
    negative_prompt: str = ""
    strength: float = Field(1.0, gt=0, le=1)
    """How much of the denoising the prompt decides. Below 1, the first steps from inverted latents retrace the inversion
    (empty prompt, no guidance), which fixes where things are before the prompt says what they are. 1 is the paper's."""
    feature_injection: float = Field(0.0, ge=0, le=1)
    """Share of the steps, from the first, in which the edit takes over the features that re-make the clip (plug-and-play,
    Tumanyan et al. 2023): things stay where they are, whatever they become. Such a step costs half more. Only from inverted
    latents; 0 is the paper's."""
    injected_layers: tuple[str, ...] = ("up_blocks.1.resnets.1",)
    """Layers whose outputs are these features; plug-and-play's on Stable Diffusion."""
    cache_interval: int = Field(1, ge=1)
    """In one of so many steps the whole network is computed; those in between take its deep features from there (see
    `tav.caching`). Steps that retrace the inversion are always whole. 1 turns it off."""
    noise_blend: float = Field(0.0, ge=0, le=1)
    """How much of the inverted latents' variance is replaced by Gaussian noise (√(1-b)·latents + √b·noise): 0 keeps the
    clip's motion and layout, 1 forgets the clip."""
    seed: int = Field(0, ge=0, lt=2**63)
    """Of the Gaussian noise: where no inverted latents are given, or blended into them."""
    num_frames: int | None = Field(None, ge=1)
    """Without inverted latents: frames to make; None takes the delta's."""
    size: tuple[int, int] | None = None
    """Without inverted latents: `(width, height)`; None takes the delta's."""
    fps: float | None = Field(None, ge=0.0002, le=240)
    """None takes the clip's."""

    @field_validator("guidance_interval")
    @classmethod
    def _from_before_until(cls, interval: tuple[float, float]) -> tuple[float, float]:
        if not 0 <= interval[0] < interval[1] <= 1:
            raise ValueError("give two shares of the steps, 0 to 1, the lower first")
        return interval


class Progress(NamedTuple):
    """Reported after every step of a phase. Raise in the callback to stop the work."""

    phase: str
    """tuning, inverting or sampling."""
    step: int
    """Steps done, 1 … total."""
    total: int
    loss: float | None = None
    seconds: float = 0.0
    """Duration of this step."""
