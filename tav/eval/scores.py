"""Scores that suit any video. What is given decides which: no source, no agreement with it; no model, no score by it."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from tav.config import Config
from tav.eval.flow import flow_scores
from tav.eval.suite import Measure
from tav.video import Frames

if TYPE_CHECKING:
    from tav.eval.models import ImageText, Structure

CLIP = "openai/clip-vit-large-patch14"
"""The CLIP model of the paper's and LOVEU-TGVE's figures."""
PICK = "yuvalkirstain/PickScore_v1"
PICK_PROCESSOR = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
STRUCTURE = "facebook/dinov2-base"

MEASURES = (
    Measure("frame_consistency", "higher", "Mean CLIP cosine over all pairs of different frames.", ".4f"),
    Measure("textual_faithfulness", "higher", "Mean over frames of 100 × CLIP cosine between frame and prompt.", ".2f"),
    Measure("pick_score", "higher", "Mean over frames of PickScore: the preference model's own scale × cosine.", ".2f"),
    Measure("warping_error", "lower", "Flicker: 1000 × mean squared change beyond the video's own motion.", ".2f"),
    Measure("flow_agreement", "higher", "Motion against the source's: 1 the same, 0 unrelated or still, −1 opposite.", ".3f"),
    Measure("structure_distance", "lower", "Mean squared difference from the source's self-similarity of patches.", ".4f"),
)


class ScoreConfig(Config):
    """Models to score with, each a hub id or a folder; a score whose model is not given is left out."""

    clip_model: str | None = None
    """For frame consistency and textual faithfulness; the published figures use `CLIP`."""
    pick_model: str | None = None
    """For PickScore: `PICK`."""
    pick_processor: str | None = None
    """Where PickScore's processor is; none: beside the model, or `PICK_PROCESSOR` for `PICK`, which comes without."""
    structure_model: str | None = None
    """For structure distance: `STRUCTURE` or any other vision transformer."""


class Scorer:
    """Loads its models once; scores video after video.

    Args:
        config: which models.
        device: where they compute; flow runs on the CPU.

    Raises:
        ScoreModelUnavailable: a model that cannot be loaded.
    """

    def __init__(self, config: ScoreConfig | None = None, device: str = "cpu") -> None:
        self.config = config or ScoreConfig()
        self.clip: ImageText | None = None
        self.pick: ImageText | None = None
        self.structure: Structure | None = None
        if not any((self.config.clip_model, self.config.pick_model, self.config.structure_model)):
            return
        from tav.eval.models import ImageText, Structure  # slow to import, and not needed for flow

        if self.config.clip_model:
            self.clip = ImageText(self.config.clip_model, device)
        if self.config.pick_model:
            processor = self.config.pick_processor or (PICK_PROCESSOR if self.config.pick_model == PICK else None)
            self.pick = ImageText(self.config.pick_model, device, processor)
        if self.config.structure_model:
            self.structure = Structure(self.config.structure_model, device)

    def score(self, frames: Frames, prompt: str | None = None, source: Frames | None = None) -> dict[str, float]:
        """Score one video by the names of `MEASURES`.

        Args:
            frames: uint8 `[F, H, W, 3]`, F ≥ 2.
            prompt: what was asked for.
            source: the frames it was made from, of the same shape.

        Raises:
            InvalidConfig: a single frame, or a source of another number or size of frames.
        """
        flow = flow_scores(frames, source)
        scores = {"warping_error": flow.warping_error}
        if flow.flow_agreement is not None:
            scores["flow_agreement"] = flow.flow_agreement
        if self.clip or self.pick or self.structure:
            scores |= self._by_models(frames, prompt, source)
        return {measure.name: scores[measure.name] for measure in MEASURES if measure.name in scores}

    def _by_models(self, frames: Frames, prompt: str | None, source: Frames | None) -> dict[str, float]:
        from tav.eval.models import faithfulness, frame_consistency, structure_distance

        scores = {}
        if self.clip:
            images = self.clip.images(frames)
            scores["frame_consistency"] = frame_consistency(images)
            if prompt:
                scores["textual_faithfulness"] = faithfulness(images, self.clip.text(prompt))
        if self.pick and prompt:
            scores["pick_score"] = faithfulness(self.pick.images(frames), self.pick.text(prompt), self.pick.scale)
        if self.structure and source is not None:
            ours, theirs = self.structure.similarities(frames), self.structure.similarities(source)
            scores["structure_distance"] = structure_distance(ours, theirs)
        return scores


def as_metrics(scorer: Scorer, samples: Sequence[tuple[str, Frames]], source: Frames) -> dict[str, float]:
    """Turn scores of a version's validation samples into metrics of its run.

    Args:
        scorer: with the models to score by.
        samples: `(prompt, frames)` of each.
        source: the clip's frames.

    Returns:
        `eval/<number>/<score>` of each sample, numbered from 1 as its file is, and their means as `eval/<score>`.
    """
    each = [scorer.score(frames, prompt, source) for prompt, frames in samples]
    single = {f"eval/{i}/{name}": value for i, scores in enumerate(each, 1) for name, value in scores.items()}
    return single | {f"eval/{name}": fmean(scores[name] for scores in each) for name in (each[0] if each else ())}
