"""Bases of every published form: folders and single files, of SD1.x and SD2.x."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel

import tav
from tav import Base, Clip, InvertConfig, SampleConfig, TuneConfig
from tav.ddim import DDIM
from tav.delta import Origin
from tav.errors import BaseMismatch, BaseUnavailable, InvalidConfig
from tests.tav.ldm import write_single_file

UNET, VAE, TEXT = (
    "unet/diffusion_pytorch_model.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
    "text_encoder/model.safetensors",
)


def change_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def assert_same_tensors(one: Base, other: Base) -> None:
    for part in ("unet", "vae", "text_encoder"):
        wanted, given = getattr(one, part).state_dict(), getattr(other, part).state_dict()
        assert wanted.keys() == given.keys()
        assert all(torch.equal(given[name], tensor) for name, tensor in wanted.items()), part


@pytest.fixture
def folder(base_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(base_folder, tmp_path / "base"))


@pytest.mark.parametrize("kind", ["base", "sd21"])
def test_a_single_file_is_the_base_that_it_was_made_of(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    base, folder = request.getfixturevalue(kind), request.getfixturevalue(f"{kind}_folder")
    file = write_single_file(base, tmp_path / "model.safetensors")
    loaded = Base.load(str(file), config=str(folder))
    assert_same_tensors(base, loaded)
    assert loaded.scheduler_config == base.scheduler_config
    prompt = ["a red square"]
    assert torch.equal(loaded.encode_text(prompt), base.encode_text(prompt))


def test_a_single_file_finds_its_configs_in_the_folder_where_it_lies(base: Base, folder: Path) -> None:
    file = write_single_file(base, folder / "model.safetensors")
    for weights in (UNET, VAE, TEXT):
        (folder / weights).unlink()
    assert_same_tensors(base, Base.load(str(file)))


def test_a_single_files_fingerprint_is_of_its_content_and_its_configs(base: Base, folder: Path, tmp_path: Path) -> None:
    file = write_single_file(base, tmp_path / "a.safetensors")
    first = Base.load(str(file), config=str(folder)).fingerprint
    assert Base.load(str(shutil.copy(file, tmp_path / "b.safetensors")), config=str(folder)).fingerprint == first
    change_json(folder / "scheduler" / "scheduler_config.json", prediction_type="v_prediction")
    assert Base.load(str(file), config=str(folder)).fingerprint != first
    assert len({first, base.fingerprint}) == 2


def test_a_single_file_without_configs_says_what_to_give(base: Base, tmp_path: Path) -> None:
    file = write_single_file(base, tmp_path / "model.safetensors")
    with pytest.raises(BaseUnavailable, match="config="):
        Base.load(str(file))


def test_a_single_file_that_lacks_tensors_or_is_of_another_kind_is_refused(
    base: Base, base_folder: Path, sd21_folder: Path, tmp_path: Path
) -> None:
    file = write_single_file(base, tmp_path / "model.safetensors")
    with pytest.raises(BaseUnavailable, match="does not fit the configs"):
        Base.load(str(file), config=str(sd21_folder))
    tensors = load_file(file)
    part = {name: t for name, t in tensors.items() if "middle_block" not in name}
    save_file(part, tmp_path / "part.safetensors")
    with pytest.raises(BaseUnavailable, match=r"lacks .* mid_block"):
        Base.load(str(tmp_path / "part.safetensors"), config=str(base_folder))


@pytest.mark.parametrize("name", ["model.ckpt", "weights.bin", "model.pt"])
def test_a_pickle_is_refused_unread(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"not even a pickle")
    with pytest.raises(BaseUnavailable, match="convert it to safetensors"):
        Base.load(str(tmp_path / name))


@pytest.mark.parametrize("weights", [UNET, TEXT])
def test_a_folder_with_pickled_weights_alone_is_refused(folder: Path, weights: str) -> None:
    stem = "diffusion_pytorch_model.bin" if "unet" in weights else "pytorch_model.bin"
    (folder / weights).rename((folder / weights).with_name(stem))
    with pytest.raises(BaseUnavailable, match=rf"{stem}, a pickle.*save_pretrained"):
        Base.load(str(folder))


def test_a_folder_without_a_parts_weights_is_refused_by_name(folder: Path) -> None:
    (folder / VAE).unlink()
    with pytest.raises(BaseUnavailable, match=r"vae has no diffusion_pytorch_model\.safetensors"):
        Base.load(str(folder))


def test_fp16_variants_are_read_and_preferred_to_nothing_else(base: Base, folder: Path) -> None:
    for weights in (UNET, VAE, TEXT):
        path = folder / weights
        halves = {name: t.half() for name, t in load_file(path).items()}
        save_file(halves, path.with_name(path.name.replace(".safetensors", ".fp16.safetensors")))
    assert Base.load(str(folder)).fingerprint == base.fingerprint  # beside whole weights, they count for nothing
    for weights in (UNET, VAE, TEXT):
        (folder / weights).unlink()
    variant = Base.load(str(folder))
    assert variant.fingerprint != base.fingerprint
    for name, tensor in base.unet.state_dict().items():
        assert torch.equal(variant.unet.state_dict()[name], tensor.half().float())


@pytest.mark.parametrize(
    ("config", "changes", "sentence"),
    [
        ("unet", {"in_channels": 9}, "inpainting"),
        ("unet", {"addition_embed_type": "text"}, "SDXL"),
        ("unet", {"cross_attention_dim": 48}, "text of width 48"),
    ],
)
def test_a_model_of_another_kind_is_refused_by_what_differs(folder: Path, config: str, changes: dict, sentence: str) -> None:
    from diffusers import UNet2DConditionModel

    change_json(folder / config / "config.json", **changes)
    unet = UNet2DConditionModel.from_config(json.loads((folder / "unet/config.json").read_text()))
    unet.save_pretrained(folder / "unet")
    with pytest.raises(BaseUnavailable, match=sentence):
        Base.load(str(folder))


def test_epsilon_at_zero_terminal_snr_is_refused_where_it_is_loaded(folder: Path) -> None:
    change_json(folder / "scheduler/scheduler_config.json", rescale_betas_zero_snr=True, timestep_spacing="trailing")
    with pytest.raises(InvalidConfig, match="v_prediction"):
        Base.load(str(folder))


@pytest.mark.parametrize(("height", "width"), [(8, 8), (9, 7)])
def test_an_sd21_network_untuned_equals_its_base_frame_by_frame(sd21: Base, height: int, width: int) -> None:
    net = tav.inflate(sd21.unet, attention="frame", group_norm="frame")
    assert [block.attentions[0].transformer_blocks[0].attn_temp.heads for block in net.down_blocks[:3]] == [1, 2, 4]
    latents, text = torch.randn(2, 4, 3, height, width), torch.randn(2, 7, 32)
    with torch.no_grad():
        video = net(latents, torch.tensor([7, 801]), text)
        for frame in range(3):
            image = sd21.unet(latents[:, :, frame], torch.tensor([7, 801]), text).sample
            torch.testing.assert_close(video[:, :, frame], image, atol=1e-5, rtol=0)


def test_an_sd21_base_is_tuned_inverted_and_sampled(sd21: Base, clip: Clip) -> None:
    delta = tav.tune(sd21, clip, TuneConfig(steps=3, learning_rate=1e-3))
    noise = tav.invert(sd21, clip, delta, InvertConfig(num_inference_steps=3))
    for scheduler in ("ddim", "dpmpp_2m", "unipc"):
        config = SampleConfig(num_inference_steps=3, guidance_scale=2, scheduler=scheduler)
        first = tav.sample(sd21, "a blue square", delta=delta, latents=noise, config=config)
        assert (tav.sample(sd21, "blue", delta=delta, latents=noise, config=config).frames != first.frames).any()


def test_v_prediction_at_zero_terminal_snr_steps_as_diffusers_does_and_back(sd21: Base) -> None:
    config = sd21.scheduler_config
    ours, theirs = DDIM(config, 10), DDIMScheduler.from_config(config)
    theirs.set_timesteps(10)
    assert ours.timesteps == theirs.timesteps.tolist()
    x, prediction = torch.randn(1, 4, 2, 8, 8), torch.randn(1, 4, 2, 8, 8)
    for t in ours.timesteps:
        torch.testing.assert_close(ours.down(x, prediction, t), theirs.step(prediction, t, x).prev_sample)
        torch.testing.assert_close(ours.up(ours.down(x, prediction, t), prediction, t), x, atol=1e-4, rtol=1e-4)


def test_openclips_layer_before_the_last_is_what_is_read(sd21: Base, sd21_folder: Path) -> None:
    whole = CLIPTextModel.from_pretrained(sd21_folder / "text_encoder")
    assert len(whole.encoder.layers) == 23  # of 24: the folder's config leaves the last out
    tokens = sd21.tokenizer(["a red square"], padding="max_length", max_length=16, return_tensors="pt").input_ids
    assert torch.equal(sd21.encode_text(["a red square"]), whole(tokens).last_hidden_state)


def test_what_was_tuned_on_the_shipped_base_of_an_earlier_release_goes_on() -> None:
    shipped = Base.load("offline")
    earlier = "4cba70123dcad2934254e351fc9036dd4b3e11af42918ee68174e3fedb441b27"
    assert shipped.fingerprint != earlier, "0.2.0 changed its folder, and none of its weights"
    work: dict[str, Any] = {"base": "offline", "caption": "a ball", "num_frames": 2, "size": (64, 64), "fps": 8.0}
    Origin(fingerprint=earlier, **work).check(shipped)
    with pytest.raises(BaseMismatch):
        Origin(fingerprint="4" * 64, **work).check(shipped)
