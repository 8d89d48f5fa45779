"""All methods by name."""

from __future__ import annotations

from typing import Protocol

from tav.eval.methods.frames import ImageToImage, PlugAndPlay
from tav.eval.methods.text_to_video import TextToVideo
from tav.eval.methods.tuned import Tuned, Untuned
from tav.eval.methods.workbench import Workbench
from tav.eval.suite import Case, SuiteClip
from tav.video import Video


class Method(Protocol):
    """One way to make a case's video."""

    @property
    def name(self) -> str:
        """Letters, digits, `_`."""

    @property
    def about(self) -> str:
        """One sentence for the report."""

    def sample(self, bench: Workbench, clip: SuiteClip, case: Case) -> Video:
        """Make the case's video, of as many frames as the clip. Everything random comes from `case.seed`."""


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Tuned("tuned", "Tuned and inverted with the base's recommended settings."),
        Tuned(
            "no_st_attention",
            "Tuned with each frame attending to itself alone, not to the first and previous.",
            attention="frame",
        ),
        Tuned("no_inversion", "Tuned; sampled from Gaussian noise instead of the inverted latents.", inverted=False),
        Untuned("no_tuning", "The inflated base as it is, with inverted latents."),
        ImageToImage("img2img"),
        PlugAndPlay("plug_and_play"),
        TextToVideo("cogvideox"),
    )
}
"""By name; the first is the one that others are compared with."""
