"""What is exported for the public implementation is what its libraries (diffusers 0.11.1, transformers 4.30) read."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import tav
from tav import Base, Clip, Delta
from tav.delta import DeltaMeta, Origin
from tav.errors import InvalidConfig
from tav.interop import export_diffusers, export_tune_a_video, extract_base, import_checkpoint
from tests.tav.public_checkpoint import write_public_checkpoint
from tests.tav.test_bases import TEXT, UNET, VAE, assert_same_tensors, change_json


@pytest.fixture
def folder(base_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(base_folder, tmp_path / "base"))


def untuned(base: Base, clip: Clip) -> Delta:
    meta = DeltaMeta(origin=Origin.of(base, clip), attention="sparse_causal", group_norm="video", tune=None)
    return Delta.extract(tav.inflate(base.unet), meta)


def exported(folder: Path, clip: Clip, out: Path) -> tuple[Base, list[str]]:
    base = Base.load(str(folder))
    return base, export_tune_a_video(base, untuned(base, clip), None, out)


def tensors_of(folder: Path) -> dict[str, dict[str, Any]]:
    return {
        part: torch.load(next((folder / part).glob("*.bin")), weights_only=True) for part in ("vae", "text_encoder", "unet")
    }


def test_every_part_has_the_names_and_files_of_a_folder_that_the_public_implementation_wrote(
    base_folder: Path, clip: Clip, tmp_path: Path
) -> None:
    base, _ = exported(base_folder, clip, tmp_path / "out")
    public = write_public_checkpoint(tmp_path / "public", base_folder)
    ours, theirs = tensors_of(tmp_path / "out"), tensors_of(public)
    for part, tensors in theirs.items():
        assert ours[part].keys() == tensors.keys(), part
        assert [file.name for file in (tmp_path / "out" / part).glob("*.bin")] == [
            f.name for f in (public / part).glob("*.bin")
        ]
    assert torch.equal(ours["text_encoder"]["text_model.embeddings.position_ids"], torch.arange(16)[None])
    query = "decoder.mid_block.attentions.0.{}.weight"
    assert torch.equal(ours["vae"][query.format("query")], base.vae.state_dict()[query.format("to_q")])


def test_the_way_back_gives_the_base_again(base: Base, base_folder: Path, clip: Clip, tmp_path: Path) -> None:
    _, said = exported(base_folder, clip, tmp_path / "out")
    assert said == []
    again = Base.load(str(extract_base(tmp_path / "out", tmp_path / "again")))
    assert_same_tensors(replace(base, unet=again.unet), again)
    assert import_checkpoint(tmp_path / "out", base).deviation == {"unet": 0, "vae": 0, "text_encoder": 0}


def test_a_vocabulary_that_today_s_libraries_saved_is_written_as_the_older_ones_read_it(
    base: Base, folder: Path, clip: Clip, tmp_path: Path
) -> None:
    before = {name: (folder / "tokenizer" / name).read_text() for name in ("vocab.json", "merges.txt")}
    shutil.rmtree(folder / "tokenizer")
    base.tokenizer.save_pretrained(folder / "tokenizer")
    assert not (folder / "tokenizer/vocab.json").exists()
    exported(folder, clip, tmp_path / "out")
    out = tmp_path / "out/tokenizer"
    assert json.loads((out / "vocab.json").read_text()) == json.loads(before["vocab.json"])
    assert (out / "merges.txt").read_text().split() == before["merges.txt"].split()
    config = json.loads((out / "tokenizer_config.json").read_text())
    assert (config["tokenizer_class"], config["model_max_length"]) == ("CLIPTokenizer", 16)


def test_the_shipped_vocabulary_s_merges_survive_too(clip: Clip, tmp_path: Path) -> None:
    offline = Base.load("offline")
    folder = Path(shutil.copytree(tav.bases.OFFLINE, tmp_path / "offline"))
    shutil.rmtree(folder / "tokenizer")
    offline.tokenizer.save_pretrained(folder / "tokenizer")
    _, said = exported(folder, clip, tmp_path / "out")
    assert (tmp_path / "out/tokenizer/merges.txt").read_text().split() == (
        tav.bases.OFFLINE / "tokenizer/merges.txt"
    ).read_text().split()
    assert len(said) == 1 and "scaled by 0.82618; the public implementation has 0.18215 in its code" in said[0]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"timestep_spacing": "trailing"}, "timestep spacing is 'trailing'"),
        ({"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}, "ends at zero SNR"),
        ({"_class_name": "UniPCMultistepScheduler"}, None),
    ],
)
def test_a_schedule_that_it_does_not_have_is_told(
    folder: Path, clip: Clip, tmp_path: Path, changes: dict[str, Any], sentence: str | None
) -> None:
    change_json(folder / "scheduler/scheduler_config.json", **changes)
    _, said = exported(folder, clip, tmp_path / "out")
    assert [sentence in one for one in said if sentence] == ([True] if sentence else []) and len(said) == bool(sentence)
    index = json.loads((tmp_path / "out/model_index.json").read_text())
    written = json.loads((tmp_path / "out/scheduler/scheduler_config.json").read_text())
    assert index["scheduler"][1] == written["_class_name"] != "UniPCMultistepScheduler"


def test_a_network_that_it_cannot_have_is_refused(folder: Path, clip: Clip, tmp_path: Path) -> None:
    from diffusers import AutoencoderKL, UNet2DConditionModel

    config = json.loads((folder / "unet/config.json").read_text())
    UNet2DConditionModel.from_config(config | {"transformer_layers_per_block": 2}).save_pretrained(folder / "unet")
    with pytest.raises(InvalidConfig, match="has no transformer_layers_per_block, which is 2"):
        exported(folder, clip, tmp_path / "out")
    UNet2DConditionModel.from_config(config).save_pretrained(folder / "unet")
    vae = json.loads((folder / "vae/config.json").read_text())
    AutoencoderKL.from_config(vae | {"use_quant_conv": False}).save_pretrained(folder / "vae")
    with pytest.raises(InvalidConfig, match="use_quant_conv"):
        exported(folder, clip, tmp_path / "other")


def test_a_base_of_fp16_variants_is_exported_under_the_plain_names(folder: Path, clip: Clip, tmp_path: Path) -> None:
    for weights in (UNET, VAE, TEXT):
        path = folder / weights
        save_file({n: t.half() for n, t in load_file(path).items()}, path.with_name(path.name.replace(".saf", ".fp16.saf")))
        path.unlink()
    base, said = exported(folder, clip, tmp_path / "reference")
    assert said == [] and all(
        t.dtype in (torch.float16, torch.int64) for t in tensors_of(tmp_path / "reference")["vae"].values()
    )
    export_diffusers(base, untuned(base, clip), None, tmp_path / "pipeline")
    assert_same_tensors(base, Base.load(str(tmp_path / "pipeline")))
    assert np.isclose(base.encode_text(["a"]), Base.load(str(tmp_path / "pipeline")).encode_text(["a"])).all()
