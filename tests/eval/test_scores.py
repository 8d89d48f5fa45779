"""Scores by models: known values, and the same figures as transformers' own pipeline of CLIP."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPModel, CLIPProcessor

from tav.errors import InvalidConfig, ScoreModelUnavailable
from tav.eval.models import ImageText, Structure, faithfulness, frame_consistency, structure_distance
from tav.eval.scores import MEASURES, ScoreConfig, Scorer, as_metrics
from tests.eval.conftest import pan, texture, write_clip_model

PROMPT = "a red square, moving"


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return np.concatenate([pan(texture(seed), 2, 0, num_frames=2) for seed in range(3)])


def test_consistency_is_one_for_identical_frames_and_leaves_the_diagonal_out() -> None:
    one = torch.nn.functional.normalize(torch.ones(1, 8), dim=-1)
    assert frame_consistency(one.expand(5, -1)) == pytest.approx(1)
    assert frame_consistency(torch.eye(3)) == 0
    half = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])  # of three pairs, one is alike
    assert frame_consistency(half) == pytest.approx(1 / 3)


def test_consistency_does_not_depend_on_the_order_of_frames(clip_model: Path, frames: np.ndarray) -> None:
    images = ImageText(str(clip_model)).images(frames)
    assert frame_consistency(images.flip(0)) == pytest.approx(frame_consistency(images), abs=1e-6)
    assert frame_consistency(images) < 1 - 1e-5


def test_clip_scores_are_those_of_transformers_own_processor_and_model(clip_model: Path, frames: np.ndarray) -> None:
    model, processor = CLIPModel.from_pretrained(clip_model), CLIPProcessor.from_pretrained(clip_model)
    pictures = [Image.fromarray(frame) for frame in frames]
    with torch.inference_mode():
        out = model(**processor(text=[PROMPT], images=pictures, return_tensors="pt", padding=True))
    images = torch.nn.functional.normalize(out.image_embeds, dim=-1)
    cosines = [float(a @ b) for i, a in enumerate(images) for j, b in enumerate(images) if i != j]
    scores = Scorer(ScoreConfig(clip_model=str(clip_model))).score(frames, PROMPT)
    assert scores["frame_consistency"] == pytest.approx(sum(cosines) / len(cosines), abs=1e-6)
    assert scores["textual_faithfulness"] == pytest.approx(100 * float((images @ out.text_embeds[0]).mean()), abs=1e-4)
    assert scores["textual_faithfulness"] == pytest.approx(float(out.logits_per_image.mean()), abs=1e-2)  # scale e^4.6052


def test_pick_score_is_the_cosine_times_the_models_own_scale(pick_model: Path, frames: np.ndarray) -> None:
    pick = ImageText(str(pick_model))
    assert pick.scale == pytest.approx(np.exp(3), rel=1e-4)
    scores = Scorer(ScoreConfig(pick_model=str(pick_model))).score(frames, PROMPT)
    cosine = faithfulness(pick.images(frames), pick.text(PROMPT), 1)
    assert scores["pick_score"] == pytest.approx(np.exp(3) * cosine, rel=1e-4)
    assert "frame_consistency" not in scores


def test_a_processor_elsewhere_serves_a_model_that_comes_without(tmp_path: Path, pick_model: Path, clip_model: Path) -> None:
    bare = write_clip_model(tmp_path / "bare", seed=1, scale=3.0)
    for name in ("preprocessor_config.json", "vocab.json", "merges.txt", "tokenizer_config.json"):
        (bare / name).unlink()
    frames = pan(texture(), 1, 1)
    with pytest.raises(ScoreModelUnavailable, match=r"preprocessor_config\.json"):
        Scorer(ScoreConfig(pick_model=str(bare)))
    config = ScoreConfig(pick_model=str(bare), pick_processor=str(clip_model))
    assert Scorer(config).score(frames, PROMPT) == Scorer(ScoreConfig(pick_model=str(pick_model))).score(frames, PROMPT)


def test_structure_distance_is_zero_to_itself_and_grows_with_change(structure_model: Path) -> None:
    structure = Structure(str(structure_model))
    source = pan(texture(), 1, 1)
    own = structure.similarities(source)
    assert own.shape == (4, 16, 16)
    assert torch.allclose(own.diagonal(dim1=1, dim2=2), torch.ones(4, 16), atol=1e-5)
    assert structure_distance(own, own) == 0
    nearly = structure_distance(structure.similarities((source * 0.9).astype(np.uint8)), own)
    other = structure_distance(structure.similarities(pan(texture(7), 1, 1)), own)
    assert 0 < nearly < other


def test_what_is_given_decides_which_scores_there_are(clip_model: Path, pick_model: Path, structure_model: Path) -> None:
    frames = pan(texture(), 1, 1)
    assert list(Scorer().score(frames, PROMPT)) == ["warping_error"]
    assert list(Scorer().score(frames, source=frames)) == ["warping_error", "flow_agreement"]
    everything = ScoreConfig(clip_model=str(clip_model), pick_model=str(pick_model), structure_model=str(structure_model))
    assert list(Scorer(everything).score(frames, PROMPT, frames)) == [measure.name for measure in MEASURES]
    assert list(Scorer(everything).score(frames)) == ["frame_consistency", "warping_error"]


def test_a_missing_model_is_an_error_that_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(ScoreModelUnavailable, match=r"no model '.*nowhere' to score with: give a hub id"):
        Scorer(ScoreConfig(clip_model=str(tmp_path / "nowhere")))


def test_a_model_of_another_kind_is_refused(clip_model: Path, structure_model: Path) -> None:
    with pytest.raises(InvalidConfig, match="is a Dinov2Model: give a CLIP model"):
        Scorer(ScoreConfig(clip_model=str(structure_model)))
    with pytest.raises(InvalidConfig, match="is a CLIPModel: give a vision transformer"):
        Scorer(ScoreConfig(structure_model=str(clip_model)))


def test_weights_that_lack_a_part_are_refused_not_drawn_at_random(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = write_clip_model(tmp_path / "part", seed=0)
    tensors = load_file(folder / "model.safetensors")
    save_file(
        {k: v for k, v in tensors.items() if k != "visual_projection.weight"}, folder / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(ScoreModelUnavailable, match=r"lack visual_projection\.weight"):
        Scorer(ScoreConfig(clip_model=str(folder)))


def test_validation_samples_become_metrics_one_by_one_and_their_means(clip_model: Path) -> None:
    source = pan(texture(), 2, 1)
    scorer = Scorer(ScoreConfig(clip_model=str(clip_model)))
    samples = [("a blue square", source), ("a star", pan(texture(3), 0, 0))]
    metrics = as_metrics(scorer, samples, source)
    names = ["frame_consistency", "textual_faithfulness", "warping_error", "flow_agreement"]
    assert sorted(metrics) == sorted(f"eval/{where}{name}" for where in ("", "1/", "2/") for name in names)
    assert metrics["eval/1/flow_agreement"] == pytest.approx(1)
    assert metrics["eval/flow_agreement"] == pytest.approx((1 + metrics["eval/2/flow_agreement"]) / 2)
    assert as_metrics(scorer, [], source) == {}
