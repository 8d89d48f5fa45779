"""Nothing of a base is ever left at random values, and what keeps a base from being used is named."""

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel, RobertaConfig, RobertaModel, T5Config, T5EncoderModel

import tav
from tav import Base
from tav.bases import OFFLINE
from tav.errors import BaseUnavailable, InvalidCheckpoint, InvalidConfig
from tav.interop import extract_base
from tav.networks import old_text_tensors, old_vae_tensors
from tests.tav.public_checkpoint import write_public_checkpoint
from tests.tav.test_bases import TEXT, UNET, VAE, assert_same_tensors, change_json

Change = Callable[[dict[str, torch.Tensor]], object]


@pytest.fixture
def folder(base_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(base_folder, tmp_path / "base"))


def change(file: Path, by: Change) -> None:
    tensors = load_file(file)
    by(tensors)
    save_file(tensors, file, {"format": "pt"})


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("weights", [UNET, VAE, TEXT])
def test_a_folder_that_lacks_any_tensor_is_refused_by_its_name(folder: Path, weights: str, seed: int) -> None:
    lost = random.Random(seed).choice(sorted(load_file(folder / weights)))
    change(folder / weights, lambda tensors: tensors.pop(lost))
    with pytest.raises(BaseUnavailable) as caught:
        Base.load(str(folder))
    assert f"its {weights.split('/')[0]} lacks 1 of" in str(caught.value) and str(caught.value).count(lost) == 1


@pytest.mark.parametrize("weights", [UNET, VAE, TEXT])
def test_a_tensor_of_another_shape_is_refused_by_its_name(folder: Path, weights: str) -> None:
    name = sorted(load_file(folder / weights))[3]
    change(folder / weights, lambda tensors: tensors.update({name: torch.zeros(7, 2)}))
    with pytest.raises(BaseUnavailable, match=rf"{name} as \[7, 2\], where its config says"):
        Base.load(str(folder))


def test_tensors_of_a_layer_that_the_network_does_not_have_are_refused(folder: Path) -> None:
    change(folder / UNET, lambda tensors: tensors.update({"mid_block.attentions.0.fuser.linear.weight": torch.zeros(2)}))
    with pytest.raises(BaseUnavailable, match=r"1 tensors too many, e\.g\. mid_block\.attentions\.0\.fuser"):
        Base.load(str(folder))


@pytest.mark.parametrize("name", ["base", "offline"])
def test_what_is_loaded_is_what_the_libraries_load(name: str, base_folder: Path) -> None:
    folder = OFFLINE if name == "offline" else base_folder
    loaded = Base.load(str(folder), dtype=torch.bfloat16)
    theirs = {
        "unet": UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.bfloat16),
        "vae": AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=torch.bfloat16),
        "text_encoder": CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.bfloat16).eval(),
    }
    assert_same_tensors(replace(loaded, **theirs), loaded)
    assert all(
        {**ours.config} | {"_name_or_path": 0} == {**theirs[part].config} | {"_name_or_path": 0}
        for part, ours in (("unet", loaded.unet), ("vae", loaded.vae))
    )
    tokens = loaded.tokenizer(["a red ball"], padding="max_length", truncation=True, return_tensors="pt").input_ids
    assert torch.equal(loaded.encode_text(["a red ball"]), theirs["text_encoder"](tokens).last_hidden_state)


def test_names_of_older_libraries_are_read(base: Base, folder: Path) -> None:
    vae, text = load_file(folder / VAE), load_file(folder / TEXT)
    old = old_vae_tensors(vae)
    assert "decoder.mid_block.attentions.0.proj_attn.weight" in old and old.keys() != vae.keys()
    save_file(old, folder / VAE)
    save_file(old_text_tensors(text) | {"text_model.embeddings.position_ids": torch.arange(16)[None]}, folder / TEXT)
    assert_same_tensors(base, Base.load(str(folder)))


def _roberta(folder: Path) -> None:
    config = RobertaConfig(vocab_size=60, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)
    RobertaModel(config).save_pretrained(folder / "text_encoder")


def _t5(folder: Path) -> None:
    T5EncoderModel(T5Config(vocab_size=60, d_model=32, d_ff=64, num_layers=1, num_heads=2)).save_pretrained(
        folder / "text_encoder"
    )


def _tiny_vae(folder: Path) -> None:
    AutoencoderTiny(
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    ).save_pretrained(folder / "vae")


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (_roberta, "its text encoder is of type 'roberta', not CLIP's"),
        (_t5, "its text encoder is of type 't5', not CLIP's"),
        (_tiny_vae, "its vae is of class 'AutoencoderTiny'"),
        (lambda f: change_json(f / "vae/config.json", shift_factor=0.1), "moves its latents"),
        (lambda f: change_json(f / "unet/config.json", _class_name="UNetMotionModel"), "of class 'UNetMotionModel'"),
    ],
)
def test_a_part_of_another_kind_is_refused_by_name(folder: Path, make: Callable[[Path], object], sentence: str) -> None:
    make(folder)
    with pytest.raises(BaseUnavailable, match=sentence):
        Base.load(str(folder))


ODD = {
    "time_cond_proj_dim": (8, "guidance embedding"),
    "attention_type": ("gated", "GLIGEN"),
    "only_cross_attention": (True, "no self-attention"),
    "dual_cross_attention": (True, "two texts"),
    "class_embed_type": ("timestep", "wants more than a prompt"),
    "num_class_embeds": (5, "noise level"),
    "down_block_types": (["CrossAttnDownBlock2D", "AttnDownBlock2D"], "'AttnDownBlock2D'"),
    "mid_block_type": (None, "mid_block_type of None"),
}
SMALL = {
    "sample_size": 8,
    "block_out_channels": (16, 32),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "layers_per_block": 1,
    "cross_attention_dim": 16,
    "attention_head_dim": 2,
    "norm_num_groups": 8,
}


@pytest.mark.parametrize("key", ODD)
def test_a_unet_that_cannot_be_inflated_is_refused_by_name_and_before_anything_is_read(folder: Path, key: str) -> None:
    value, sentence = ODD[key]
    unet = UNet2DConditionModel(**(SMALL | {key: value}))
    with pytest.raises(InvalidConfig, match=sentence):
        tav.inflate(unet)
    change_json(folder / "unet/config.json", **{key: value})
    (folder / UNET).write_bytes(b"not even weights")
    with pytest.raises(BaseUnavailable, match=sentence):
        Base.load(str(folder))


@pytest.mark.parametrize(
    "free",
    [
        {},
        {"transformer_layers_per_block": 2},
        {"resnet_time_scale_shift": "scale_shift"},
        {"center_input_sample": True},
        {"only_cross_attention": [False, False]},
        {"conv_in_kernel": 5},
        {"time_embedding_type": "fourier"},
        {"resnet_out_scale_factor": 1.4},
        {"act_fn": "gelu"},
        {"use_linear_projection": True},
    ],
)
def test_a_unet_that_is_inflated_untuned_equals_its_base(free: dict[str, object]) -> None:
    torch.manual_seed(0)
    unet = UNet2DConditionModel(**(SMALL | free)).eval()
    net = tav.inflate(unet, attention="frame", group_norm="frame")
    latents, text = torch.randn(1, 4, 2, 8, 8), torch.randn(1, 5, 16)
    with torch.no_grad():
        images = [unet(latents[:, :, frame], torch.tensor([10]), text).sample for frame in range(2)]
        torch.testing.assert_close(net(latents, 10, text), torch.stack(images, 2), atol=1e-5, rtol=0)
    assert unet.state_dict().keys() <= net.state_dict().keys()


@pytest.mark.parametrize("lost", ["vocab.json", "merges.txt"])
def test_a_folder_without_a_vocabulary_is_refused_by_the_file(folder: Path, lost: str) -> None:
    (folder / "tokenizer" / lost).unlink()
    with pytest.raises(BaseUnavailable, match=f"tokenizer has no {lost}"):
        Base.load(str(folder))


def test_a_vocabulary_larger_than_the_text_encoder_s_is_refused(folder: Path) -> None:
    vocabulary = json.loads((folder / "tokenizer/vocab.json").read_text())
    (folder / "tokenizer/vocab.json").write_text(json.dumps(vocabulary | {"zz": len(vocabulary)}))
    with pytest.raises(BaseUnavailable, match=rf"has {len(vocabulary) + 1} words, its text encoder {len(vocabulary)}"):
        Base.load(str(folder))


@pytest.mark.parametrize("length", [None, 10**6])
def test_prompts_end_where_the_text_encoder_does_whatever_the_tokenizer_says(folder: Path, length: int | None) -> None:
    file = folder / "tokenizer/tokenizer_config.json"
    file.write_text(json.dumps({"tokenizer_class": "CLIPTokenizer", **({"model_max_length": length} if length else {})}))
    loaded = Base.load(str(folder))
    assert loaded.encode_text(["a", "a red square that goes on and on and on"]).shape == (2, 16, 32)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_a_public_pipeline_that_lacks_a_tensor_gives_no_base(base_folder: Path, tmp_path: Path, part: str) -> None:
    public = write_public_checkpoint(tmp_path / "public", base_folder)
    file = next((public / part).glob("*.bin"))
    tensors = torch.load(file, weights_only=True)
    lost = sorted(name for name in tensors if "_temp." not in name and "position_ids" not in name)[-1]
    torch.save({name: tensor for name, tensor in tensors.items() if name != lost}, file)
    with pytest.raises(InvalidCheckpoint, match=lost.removeprefix("text_model.").replace(".proj_attn.", ".to_out.0.")):
        extract_base(public, tmp_path / "out")


@pytest.mark.slow
def test_loading_a_base_says_nothing(base_folder: Path) -> None:
    code = f"import tav\nfor name in ('offline', {str(base_folder)!r}): tav.Base.load(name)"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
