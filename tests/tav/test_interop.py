"""Checkpoints of the public implementation in and out, and exported diffusers pipelines."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

import tav
from tav import Base, Clip, Delta, InvertConfig, Latents, SampleConfig, TuneConfig
from tav.delta import DeltaMeta, Origin
from tav.errors import BaseMismatch, InvalidCheckpoint, InvalidConfig
from tav.inflation import is_tuned
from tav.interop import Facts, export_diffusers, export_tune_a_video, extract_base, import_checkpoint
from tests.tav.public_checkpoint import write_public_checkpoint

FACTS = Facts(caption="a red square", num_frames=5, size=(16, 16), fps=8.0)


@pytest.fixture(scope="module")
def delta(base: Base, clip: Clip) -> Delta:
    """As far from the base as tuned ones are, in a blink: fp16, every tensor moved."""
    torch.manual_seed(5)
    net = tav.inflate(base.unet)
    meta = DeltaMeta(
        origin=Origin.of(base, clip), attention="sparse_causal", group_norm="video", tune=TuneConfig(steps=40, seed=3)
    )
    tensors = Delta.extract(net, meta).tensors
    return Delta({name: (t + 0.1 * torch.randn(t.shape)).half() for name, t in tensors.items()}, meta)


@pytest.fixture(scope="module")
def noise(base: Base, clip: Clip, delta: Delta) -> Latents:
    return tav.invert(base, clip, delta, InvertConfig(num_inference_steps=3))


@pytest.fixture(scope="module")
def public(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_public_checkpoint(tmp_path_factory.mktemp("public") / "a-red-square", base_folder)


def state_of(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "unet" / "diffusion_pytorch_model.bin", weights_only=True)


def same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(
        tensor.dtype == theirs[name].dtype and torch.equal(tensor, theirs[name]) for name, tensor in ours.items()
    )


def test_a_public_pipeline_becomes_a_delta_and_latents_on_its_base(public: Path, base: Base, clip: Clip) -> None:
    made = import_checkpoint(public, base, facts=FACTS)
    state = state_of(public)
    assert same(made.delta.tensors, {name: tensor for name, tensor in state.items() if is_tuned(name)})
    meta = made.delta.meta
    assert (meta.attention, meta.group_norm, meta.tune) == ("sparse_causal", "video", None)
    assert meta.origin == Origin.of(base, clip)
    assert made.latents is not None
    assert torch.equal(made.latents.tensor, torch.load(public / "inv_latents" / "ddim_latent-100.pt", weights_only=True))
    assert made.deviation["unet"] == 0
    assert 0 < made.deviation["vae"] < 1e-3 and 0 < made.deviation["text_encoder"] < 1e-3  # fp16 there, fp32 here
    net = tav.inflate(base.unet)
    made.delta.apply(net)
    assert all(torch.equal(tensor, state[name]) for name, tensor in net.state_dict().items())
    config = SampleConfig(num_inference_steps=2, guidance_scale=2)
    assert tav.sample(base, "blue", delta=made.delta, latents=made.latents, config=config).frames.shape == (5, 16, 16, 3)


def test_the_training_s_own_settings_are_taken_from_its_config(public: Path, base: Base, tmp_path: Path) -> None:
    folder = shutil.copytree(public, tmp_path / "x")
    training = {
        "train_data": {"prompt": "a red square", "n_sample_frames": 5, "width": 16, "height": 16, "sample_frame_rate": 1},
        "validation_data": {"num_inv_steps": 20},
        "max_train_steps": 100,
        "learning_rate": "3e-5",
        "seed": 33,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(training))
    with pytest.raises(InvalidConfig, match=r"its clip's fps: give --fps \(the public implementation .* 8 frames"):
        import_checkpoint(folder, base)
    made = import_checkpoint(folder, base, facts=Facts(fps=8.0))
    assert made.delta.meta.tune == TuneConfig(steps=100, seed=33)
    assert made.delta.meta.origin.caption == "a red square"
    assert made.latents is not None and made.latents.meta.invert.num_inference_steps == 20


def test_a_unet_alone_is_enough_in_safetensors_too_and_the_clip_can_be_inverted_here(
    public: Path, base: Base, clip: Clip, tmp_path: Path
) -> None:
    unet = tmp_path / "unet"
    unet.mkdir()
    shutil.copy(public / "unet" / "config.json", unet)
    save_file(state_of(public), unet / "diffusion_pytorch_model.safetensors")
    made = import_checkpoint(unet, base, facts=FACTS)
    assert made.latents is None and set(made.deviation) == {"unet"}
    clip.video().save(tmp_path / "clip.mp4")
    facts = Facts(caption="a red square", num_frames=5, size=(16, 16), inversion_steps=3)
    inverted = import_checkpoint(unet, base, facts=facts, video=tmp_path / "clip.mp4")
    assert inverted.delta.meta.origin.fps == pytest.approx(8.0)
    assert inverted.latents is not None and inverted.latents.meta.invert.num_inference_steps == 3
    read = Clip.read(tmp_path / "clip.mp4", "a red square", num_frames=5, size=(16, 16))
    again = tav.invert(base, read, inverted.delta, InvertConfig(num_inference_steps=3))
    assert torch.equal(inverted.latents.tensor, again.tensor)


def test_a_base_in_the_folder_can_be_taken_out_and_sampled_from(public: Path, base: Base, tmp_path: Path) -> None:
    own = Base.load(str(extract_base(public, tmp_path / "base")))
    made = import_checkpoint(public, own, facts=FACTS)
    assert set(made.deviation.values()) == {0.0}
    assert own.unet.config["block_out_channels"] == base.unet.config["block_out_channels"]
    config = SampleConfig(num_inference_steps=3, guidance_scale=2)
    theirs = tav.sample(own, "a blue square", delta=made.delta, latents=made.latents, config=config).frames
    given = import_checkpoint(public, base, facts=FACTS)
    ours = tav.sample(base, "a blue square", delta=given.delta, latents=given.latents, config=config).frames
    assert abs(theirs.astype(int) - ours.astype(int)).max() <= 2  # only the VAE and text encoder were stored in fp16
    shutil.copytree(public / "unet", tmp_path / "alone")
    with pytest.raises(InvalidCheckpoint, match="a UNet alone"):
        extract_base(tmp_path / "alone", tmp_path / "none")


def test_another_base_is_refused_with_the_tensor_and_its_deviation(public: Path, other_base: Base) -> None:
    with pytest.raises(BaseMismatch, match=r"differs from that of base .* by up to .*: name the base that the checkpoint"):
        import_checkpoint(public, other_base, facts=FACTS)


class Opens:
    """What a hostile pickle is made of."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.path), "w")


@pytest.mark.parametrize("file", ["unet/diffusion_pytorch_model.bin", "inv_latents/ddim_latent-100.pt"])
def test_a_pickle_with_code_in_it_is_refused_and_not_run(public: Path, base: Base, tmp_path: Path, file: str) -> None:
    folder = shutil.copytree(public, tmp_path / "x")
    torch.save({"a": Opens(tmp_path / "ran")}, folder / file)
    with pytest.raises(InvalidCheckpoint, match="could run code: it was not loaded"):
        import_checkpoint(folder, base, facts=FACTS)
    assert not (tmp_path / "ran").exists()


def edit_config(folder: Path, **changes: object) -> None:
    path = folder / "unet" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_what_cannot_be_a_delta_is_refused(public: Path, base: Base, base_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidCheckpoint, match="no temporal attention"):
        import_checkpoint(base_folder, base, facts=FACTS)
    with pytest.raises(InvalidCheckpoint, match="give a Tune-A-Video pipeline's folder"):
        import_checkpoint(tmp_path, base, facts=FACTS)
    folder = shutil.copytree(public, tmp_path / "x")
    state = state_of(folder)
    moved = next(name for name in state if name.endswith("norm_temp.weight"))
    torch.save(state | {moved: state[moved] + 1}, folder / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(InvalidCheckpoint, match=r"norm_temp\.weight was tuned"):
        import_checkpoint(folder, base, facts=FACTS)
    torch.save(state | {"conv_temporal.weight": torch.ones(1)}, folder / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(BaseMismatch, match=r"only the checkpoint has conv_temporal\.weight"):
        import_checkpoint(folder, base, facts=FACTS)
    with pytest.raises(InvalidConfig, match="4 frames of 16x16 have"):
        import_checkpoint(public, base, facts=Facts(caption="a", num_frames=4, size=(16, 16), fps=8.0))
    with pytest.raises(InvalidConfig, match="its clip's caption, fps: give --caption, --fps"):
        import_checkpoint(public, base)


def test_a_variant_s_attention_must_be_said(public: Path, base: Base, tmp_path: Path) -> None:
    folder = shutil.copytree(public, tmp_path / "x")
    edit_config(folder, use_sc_attn=True)
    assert import_checkpoint(folder, base, facts=FACTS).delta.meta.attention == "sparse_causal"
    edit_config(folder, use_st_attn=True, st_attn_idx=0)
    with pytest.raises(InvalidCheckpoint, match="use_st_attn=True, st_attn_idx=0"):
        import_checkpoint(folder, base, facts=FACTS)
    assert import_checkpoint(folder, base, facts=FACTS, attention="full").delta.meta.attention == "full"
    edit_config(folder, attention_head_dim=8)
    with pytest.raises(BaseMismatch, match="attention_head_dim is 8 in the checkpoint, 4"):
        import_checkpoint(folder, base, facts=FACTS, attention="full")


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_export_then_import_gives_the_same_bits_and_records(
    base: Base, delta: Delta, noise: Latents, tmp_path: Path, dtype: torch.dtype
) -> None:
    given = Delta({name: tensor.to(dtype) for name, tensor in delta.tensors.items()}, delta.meta)
    assert export_tune_a_video(base, given, noise, tmp_path / "reference") == []
    export_diffusers(base, given, noise, tmp_path / "pipeline")
    for folder in (tmp_path / "reference", tmp_path / "pipeline"):
        back = import_checkpoint(folder, base)
        assert same(back.delta.tensors, given.tensors) and back.delta.meta == given.meta
        assert back.latents is not None and back.latents.meta == noise.meta
        assert back.latents.tensor.dtype == noise.tensor.dtype and torch.equal(back.latents.tensor, noise.tensor)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_import_then_export_gives_the_public_folder_s_tensors_again(
    public: Path, base: Base, tmp_path: Path, dtype: torch.dtype
) -> None:
    folder = shutil.copytree(public, tmp_path / "x")
    torch.save({n: t.to(dtype) for n, t in state_of(public).items()}, folder / "unet" / "diffusion_pytorch_model.bin")
    made = import_checkpoint(folder, base, facts=FACTS)
    assert (made.deviation["unet"] == 0) == (dtype == torch.float32)
    export_tune_a_video(base, made.delta, made.latents, tmp_path / "out", dtype=dtype)
    assert same(state_of(tmp_path / "out"), state_of(folder))
    written = next((tmp_path / "out" / "inv_latents").glob("ddim_latent-*.pt"))
    before = torch.load(public / "inv_latents" / "ddim_latent-100.pt", weights_only=True)
    after = torch.load(written, weights_only=True)
    assert after.dtype == before.dtype and torch.equal(after, before)
    ours, theirs = (json.loads((f / "unet" / "config.json").read_text()) for f in (tmp_path / "out", public))
    assert ours["_class_name"] == theirs["_class_name"] and ours["mid_block_type"] == theirs["mid_block_type"]
    assert ours["down_block_types"] == theirs["down_block_types"] and ours["up_block_types"] == theirs["up_block_types"]
    indices = (json.loads((f / "model_index.json").read_text()) for f in (tmp_path / "out", public))
    assert next(indices) == next(indices)


def test_an_export_tells_what_the_public_implementation_does_otherwise_and_overwrites_nothing(
    base: Base, delta: Delta, noise: Latents, tmp_path: Path
) -> None:
    framewise = Delta(delta.tensors, delta.meta.model_copy(update={"group_norm": "frame", "attention": "full"}))
    said = export_tune_a_video(base, framewise, None, tmp_path / "a")
    assert len(said) == 2 and "full attention" in said[0] and "GroupNorm per frame" in said[1]
    back = import_checkpoint(tmp_path / "a", base)
    assert back.delta.meta == framewise.meta and back.latents is None
    with pytest.raises(InvalidConfig, match="export into a new folder"):
        export_diffusers(base, delta, noise, tmp_path / "a")
    wide = Delta({name: tensor.float() + 1e-6 for name, tensor in delta.tensors.items()}, delta.meta)
    with pytest.raises(InvalidConfig, match="export in float32"):
        export_tune_a_video(base, wide, noise, tmp_path / "b", dtype=torch.float16)


ELSEWHERE = """
import json, sys

class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("tav", "tav_client", "registry", "services"):
            raise ImportError(f"{name} is not installed here")

sys.meta_path.insert(0, NotInstalled())
import numpy as np
import torch
from diffusers import DiffusionPipeline
torch.set_num_threads(1)
folder, asked = sys.argv[1], json.loads(sys.argv[2])
pipe = DiffusionPipeline.from_pretrained(folder, custom_pipeline=folder, trust_remote_code=True)
frames = {}
for name, (prompt, seed, options) in asked.items():
    if seed is not None:
        options["generator"] = torch.Generator().manual_seed(seed)
    frames[name] = pipe(prompt, output_type="np", **options).frames[0]
by_itself = DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)
assert type(by_itself).__name__ == type(pipe).__name__
np.savez("frames.npz", **frames)
print(pipe.clip.config.fps)
"""


def sampled_elsewhere(
    folder: Path, where: Path, asked: dict[str, tuple[str, int | None, dict[str, object]]]
) -> dict[str, np.ndarray]:
    """Frames in 0 … 255 by the pipeline in `folder`, in a process that cannot import this project: prompt, the noise's seed,
    options."""
    keep = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment = keep | {"HF_MODULES_CACHE": str(where / "modules"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", ELSEWHERE, str(folder), json.dumps(asked)]
    done = subprocess.run(command, cwd=where, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == "8.0\n"
    return {name: frames * 255 for name, frames in np.load(where / "frames.npz").items()}


def assert_close(theirs: np.ndarray, ours: tav.Video) -> None:
    assert theirs.shape == ours.frames.shape
    assert abs(theirs - ours.frames).max() < 0.55  # half a level is our rounding to whole ones


@pytest.mark.slow
@pytest.mark.parametrize(("attention", "group_norm"), [("sparse_causal", "video"), ("causal", "frame")])
def test_an_exported_pipeline_samples_the_same_where_this_project_is_not_installed(
    base: Base, delta: Delta, noise: Latents, tmp_path: Path, attention: str, group_norm: str
) -> None:
    modes = Delta(delta.tensors, delta.meta.model_copy(update={"attention": attention, "group_norm": group_norm}))
    layers = ["up_blocks.2.resnets.0"]
    advised: dict[str, Any] = {"num_inference_steps": 4, "guidance_scale": 3.0, "strength": 0.7}
    advised |= {"feature_injection": 0.75, "injected_layers": layers, "guidance_interval": (0.0, 0.75)}
    export_diffusers(replace(base, defaults={"sample": advised}), modes, noise, tmp_path / "pipeline")
    asked = {
        "num_inference_steps": 4,
        "guidance_scale": 3.0,
        "guidance_interval": (0.0, 1.0),
        "strength": 0.7,
        "feature_injection": 0.0,
        "negative_prompt": "red",
    }
    free = {"use_inverted_latents": False, "num_frames": 3, "width": 24, "height": 16}
    theirs = sampled_elsewhere(
        tmp_path / "pipeline",
        tmp_path,
        {
            "inverted": ("a blue square", None, asked),
            "noise": ("a blue square", 7, asked | free),
            "blend": ("a blue square", 7, asked | {"noise_blend": 0.3, "feature_injection": 0.5}),
            "advised": ("a blue square", None, {}),
        },
    )
    sampler, config = tav.Sampler(base), SampleConfig(**asked, injected_layers=layers)
    for name, latents, changes in (
        ("inverted", noise, {}),
        ("noise", None, {"seed": 7, "num_frames": 3, "size": (24, 16)}),
        ("blend", noise, {"seed": 7, "noise_blend": 0.3, "feature_injection": 0.5}),
    ):
        ours = sampler.sample("a blue square", delta=modes, latents=latents, config=config.model_copy(update=changes))
        assert_close(theirs[name], ours)
    ours = sampler.sample("a blue square", delta=modes, latents=noise, config=SampleConfig(**advised))
    assert_close(theirs["advised"], ours)
    plain = Delta.extract(tav.inflate(base.unet), modes.meta)
    untuned = sampler.sample("a blue square", delta=plain, latents=noise, config=config)
    assert abs(untuned.frames - theirs["inverted"]).max() > 2  # or the comparison would not see the delta


@pytest.mark.slow
def test_a_clip_tuned_on_the_shipped_base_survives_both_exports(tmp_path: Path) -> None:
    base = Base.load("offline")
    frames = np.full((4, 64, 64, 3), 60, np.uint8)
    for i, frame in enumerate(frames):
        frame[24:40, 8 * i : 8 * i + 16] = (220, 40, 40)
    clip = Clip(frames, 8.0, "a red box moves over sand")
    delta = tav.tune(base, clip, base.tune_config(steps=5))
    noise = tav.invert(base, clip, delta, InvertConfig(num_inference_steps=4))
    export_tune_a_video(base, delta, noise, tmp_path / "reference")
    back = import_checkpoint(tmp_path / "reference", base)
    assert same(back.delta.tensors, delta.tensors) and back.delta.meta == delta.meta
    assert back.latents is not None and torch.equal(back.latents.tensor, noise.tensor)
    assert set(back.deviation.values()) == {0.0}
    export_diffusers(base, delta, noise, tmp_path / "pipeline")
    asked = {"num_inference_steps": 4, "guidance_scale": 4.0}
    prompt = "a blue box moves over sand"
    theirs = sampled_elsewhere(tmp_path / "pipeline", tmp_path, {"video": (prompt, None, asked)})
    config = base.sample_config(**asked)
    assert_close(theirs["video"], tav.sample(base, prompt, delta=back.delta, latents=back.latents, config=config))
