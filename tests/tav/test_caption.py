"""Captions of clips by real captioners with random weights."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from tav import Clip, Video
from tav.caption import Captioner
from tav.errors import CaptionerUnavailable, InvalidClip
from tav_client.cli import _app
from tests.tav.conftest import write_random_base
from tests.tav.random_captioner import WORDS, write_random_captioner


def pictures() -> np.ndarray:
    """Three frames that look nothing like each other, large enough to survive a video codec."""
    frames = np.zeros((3, 64, 64, 3), np.uint8)
    frames[0, :, :32] = (250, 30, 30)
    frames[1, 32:] = (20, 240, 30)
    frames[2, 16:48, 16:48] = (250, 250, 250)
    return frames


@pytest.mark.parametrize("kind", ["blip", "blip2", "git"])
def test_any_captioner_says_what_it_sees_and_the_same_each_time(tmp_path: Path, kind: str) -> None:
    captioner = Captioner(str(write_random_captioner(tmp_path, kind)))
    said = [captioner.caption(picture) for picture in pictures()]
    assert all(text and set(text.split()) <= set(WORDS) for text in said)
    assert len(set(said)) > 1
    assert said == [captioner.caption(picture) for picture in pictures()]


def test_a_clip_s_caption_is_its_middle_frame_s(tmp_path: Path) -> None:
    captioner = Captioner(str(write_random_captioner(tmp_path / "captioner")))
    clip = tmp_path / "clip.mp4"
    Video(pictures(), 8).save(clip)
    frames = Clip.read(clip, "x", num_frames=3, size=(64, 64)).frames
    assert captioner.caption_clip(clip) == captioner.caption(frames[1])
    assert captioner.caption(frames[1]) not in (captioner.caption(frames[0]), captioner.caption(frames[2]))


def test_the_command_prints_the_caption(tmp_path: Path) -> None:
    folder, clip = write_random_captioner(tmp_path / "captioner"), tmp_path / "clip.mp4"
    Video(pictures(), 8).save(clip)
    result = CliRunner().invoke(_app.app, ["caption", str(clip), "--captioner", str(folder), "--device", "cpu"])
    assert (result.exit_code, result.stdout) == (0, Captioner(str(folder)).caption_clip(clip) + "\n")
    refused = CliRunner().invoke(_app.app, ["caption", str(clip), "--captioner", str(tmp_path / "none")])
    assert refused.exit_code == 1 and f"tav: the captioner '{tmp_path / 'none'}' cannot be loaded" in refused.stderr


def test_what_is_no_captioner_is_refused_with_a_sentence(tmp_path: Path) -> None:
    base = write_random_base(tmp_path / "base", seed=0)
    for name in (str(base / "text_encoder"), str(tmp_path / "nowhere")):
        with pytest.raises(CaptionerUnavailable, match=r"cannot be loaded .*: give a folder, or a hub id"):
            Captioner(name)


@pytest.mark.parametrize("kind", ["blip", "blip2", "git"])
def test_a_captioner_that_lacks_a_tensor_is_refused_not_drawn_at_random(tmp_path: Path, kind: str) -> None:
    file = write_random_captioner(tmp_path, kind) / "model.safetensors"
    tensors = load_file(file)
    lost = next(name for name in tensors if name.endswith("mlp.fc1.weight"))
    save_file({name: tensor for name, tensor in tensors.items() if name != lost}, file, {"format": "pt"})
    with pytest.raises(CaptionerUnavailable, match=rf"lack {lost} and 0 more"):
        Captioner(str(tmp_path))


def test_a_captioner_without_words_asks_for_a_caption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    captioner = Captioner(str(write_random_captioner(tmp_path)))
    monkeypatch.setattr(captioner.model, "generate", lambda **_: torch.tensor([[2, 3, 0]]))
    with pytest.raises(InvalidClip, match="give it a caption"):
        captioner.caption(pictures()[0])
